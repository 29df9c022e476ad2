"""What is assembled: the toys, meshes of users' parts, and how parts go together."""
