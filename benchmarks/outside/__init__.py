"""What others' renderers show: videos to judge by, and models judged by them."""
