"""gunicorn with pyhugetext, for a service: `gunicorn -c gunicorn.conf.py application`.

Nothing here is needed for it to work: the package starts with every Python. What helps is said below.
"""

# Two for each processor; each has the text from the store, which is in memory once for all of them.
workers = 2

# The program is loaded by each worker, and can be loaded anew by SIGHUP. With True it is loaded once,
# and the workers share what it made, its text too, whatever the text is made of.
preload_app = False

# Where gunicorn starts as root and its workers become another user (or --user, --group on the command
# line): they cannot write to root's store, and have no home. Let root fill the system's store, which
# everybody reads, once after each installation:
#
#     pyhugetext warm --system numpy -- python -c 'import application'
#
# user = "www-data"
# group = "www-data"

# gunicorn 25 and later would make a socket in the home directory.
control_socket_disable = True
