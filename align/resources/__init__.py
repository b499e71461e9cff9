"""What a training needs, said before it starts: memory, steps, devices."""
