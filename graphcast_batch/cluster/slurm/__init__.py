"""Find what Slurm gave a process, submit jobs, and start Ray on the nodes of a job."""
