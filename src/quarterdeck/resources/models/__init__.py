"""Models as the admin API manages them: requests, objects, and the files of added ones."""
