"""What is assembled: the toys, and meshes of users' parts."""
