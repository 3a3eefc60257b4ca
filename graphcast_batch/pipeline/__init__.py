"""Make Cases in one worker: read, compute and write at once, each stage at its own pace.

The only home of a worker's threads and queues. A worker makes a few Cases at once, each in a thread of its caller: this
thread reads the inputs of the Case, checks its frames, cuts and maybe scores them, and commits the Case. One thread has
the device for all Cases, and a few more write blocks. So one Case is read while another has the device and a third is
written, and the slowest stage sets the pace.
"""
