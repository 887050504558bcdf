"""What can be said of a world, and many ways to say it, in English and Chinese."""
