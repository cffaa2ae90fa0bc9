import os

# Workers share the cores, one thread each: two threads that wait for each other on busy cores are far slower. It is set
# before anything imports torch, and processes that tests start inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
