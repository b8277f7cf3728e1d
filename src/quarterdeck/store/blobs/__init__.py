"""Blobs: contents of files, in a folder or in a bucket that speaks S3's protocol."""
