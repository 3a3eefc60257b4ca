"""What the commands do, for notebooks and programs: configs and stores become values."""
