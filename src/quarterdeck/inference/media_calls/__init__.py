"""Requests of audio and images, which are passed through to engines that serve them."""
