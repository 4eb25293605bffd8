/* Process 1 of a PID namespace: reaps orphans and waits. When it ends, the kernel kills every other
 * process of the namespace, which is how a cluster is stopped without leaving anything behind.
 * It is also the pause container of every pod, whose job is the same. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(int signal) { (void)signal; _exit(0); }

static void reap(int signal) {
  (void)signal;
  while (waitpid(-1, 0, WNOHANG) > 0) {}
}

int main(void) {
  struct sigaction reaper = {.sa_handler = reap, .sa_flags = SA_NOCLDSTOP | SA_RESTART};
  signal(SIGINT, end);
  signal(SIGTERM, end);
  sigaction(SIGCHLD, &reaper, 0);
  for (;;) pause();
}
