// Two loads that wrk can't generate: open-loop arrivals, and streams held open.
//   open_loop rate PORT RATE SECONDS CONNECTIONS   Poisson arrivals; latencies count from when a request was due
//   open_loop hold PORT 0    SECONDS CONNECTIONS   CONNECTIONS open streams; counts their tokens and gaps
// KEY in the environment is the bearer token. One JSON line: sent, done (answers or tokens), errors, times in ms.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#define MAXCONN 16384
#define BUF 65536
#define STEP 0.005 // histogram bucket width in ms
#define BUCKETS 2000000
typedef struct { int fd, busy, n; long left; int headed, chunked, ok; double due, last; char buf[BUF + 1]; } Conn;
static Conn *conns;
static unsigned *histogram;
static double most;
static long sent, done, errors, measured;
static int port, hold;
static const char *key;
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1e3 + t.tv_nsec / 1e6; }
static void enter(double ms) {
  long bucket = ms < 0 ? 0 : (long)(ms / STEP);
  histogram[bucket < BUCKETS ? bucket : BUCKETS - 1]++; measured++; if (ms > most) most = ms;
}
static double quantile(double q) {
  long rank = (long)ceil(q * measured), seen = 0;
  for (long i = 0; i < BUCKETS; i++) if ((seen += histogram[i]) >= rank && rank) return (i + 0.5) * STEP;
  return 0;
}
static void dial(Conn *c, int ep) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int one = 1;
  c->fd = socket(AF_INET, SOCK_STREAM, 0);
  if (c->fd < 0 || connect(c->fd, (void *)&a, sizeof a)) { perror("connect"); exit(1); }
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
  epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev);
  c->busy = c->n = 0;
}
static void ask(Conn *c, double due) {
  static char pad[981], body[2048], request[4096];
  if (!pad[0]) for (int i = 0; i < 980; i++) pad[i] = "The harbour master keeps a ledger of every ship. "[i % 49];
  int bl = sprintf(body, "{\"model\":\"mock\",\"messages\":[{\"role\":\"system\",\"content\":\"You are a helpful assistant. %s\"},{\"role\":\"user\","
    "\"content\":\"Question %ld of %ld: what is in the ledger?\"}],\"max_tokens\":64,\"temperature\":0.7%s}", pad, sent, random(),
    hold ? ",\"stream\":true,\"stream_options\":{\"include_usage\":true}" : "");
  int n = sprintf(request, "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    "authorization: Bearer %s\r\ncontent-length: %d\r\n\r\n%s", key, bl, body);
  c->busy = 1; c->n = 0; c->headed = 0; c->due = due; c->last = 0; sent++;
  if (write(c->fd, request, n) != n) { errors++; }
}
static long tokens_in(Conn *c) { // number of token events in complete lines
  static const char mark[] = "\"content\":\""; long found = 0;
  char *p = c->buf, *hit, *end = memrchr(c->buf, '\n', c->n);
  while (end && (hit = memmem(p, end - p, mark, sizeof mark - 1))) { found++; p = hit + sizeof mark - 1; }
  return found;
}
static int answered(Conn *c) { // 1: the response is complete
  if (!c->headed) {
    c->buf[c->n] = 0;
    char *end = strstr(c->buf, "\r\n\r\n"); if (!end) return 0;
    c->ok = !strncmp(c->buf + 9, "200", 3); *end = 0;
    char *length = strcasestr(c->buf, "content-length:"); c->chunked = !length; c->headed = 1;
    int head = end + 4 - c->buf; c->left = length ? atol(length + 15) : 0;
    memmove(c->buf, c->buf + head, c->n - head); c->n -= head;
  }
  if (c->chunked) return c->n >= 5 && !memcmp(c->buf + c->n - 5, "0\r\n\r\n", 5);
  return c->n >= c->left;
}
static int take(Conn *c, int ep) { // 1: the connection is free again
  int r = read(c->fd, c->buf + c->n, BUF - c->n);
  if (r < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
  if (r <= 0) { if (c->busy) errors++; close(c->fd); dial(c, ep); return 1; }
  c->n += r;
  int whole = answered(c);
  double t = now();
  if (hold && c->headed) {
    long tokens = tokens_in(c);
    if (tokens) { if (c->last) { enter(t - c->last); for (long i = 1; i < tokens; i++) enter(0); } c->last = t; done += tokens; }
    if (!whole) { // keep the text after the last newline, and 5 bytes to detect the end
      char *line = memrchr(c->buf, '\n', c->n); int keep = line ? c->buf + c->n - line - 1 : c->n;
      if (keep < 5) keep = c->n < 5 ? c->n : 5;
      memmove(c->buf, c->buf + c->n - keep, keep); c->n = keep;
    }
  }
  if (!whole) return 0;
  if (!c->ok) errors++; else if (!hold) { enter(t - c->due); done++; }
  c->busy = 0; c->n = 0;
  return 1;
}
int main(int argc, char **argv) {
  if (argc < 6) return 2;
  signal(SIGPIPE, SIG_IGN);
  hold = !strcmp(argv[1], "hold"); port = atoi(argv[2]);
  double rate = atof(argv[3]), seconds = atof(argv[4]); int count = atoi(argv[5]), ep = epoll_create1(0);
  key = getenv("KEY") ? getenv("KEY") : "sk-bench"; srandom(time(0) ^ getpid());
  conns = calloc(count, sizeof *conns); histogram = calloc(BUCKETS, sizeof *histogram);
  Conn **idle = calloc(count, sizeof *idle); int idles = 0, waiting = 0, from = 0;
  double *queue = calloc(1 << 22, sizeof *queue);
  for (int i = 0; i < count; i++) { dial(&conns[i], ep); idle[idles++] = &conns[i]; }
  int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK); struct epoll_event ev = {.events = EPOLLIN, .data.ptr = 0}, evs[1024];
  epoll_ctl(ep, EPOLL_CTL_ADD, timer, &ev);
  double start = now(), end = start + seconds * 1e3, next = start, patience = end + 10e3;
  for (;;) {
    double t = now();
    if (hold) { while (idles && t < end) ask(idle[--idles], t); if (t >= end) break; }
    else {
      while (next <= t && next < end) { queue[(from + waiting++) & ((1 << 22) - 1)] = next; next -= log((random() + 1.0) / 2147483649.0) / rate * 1e3; }
      while (waiting && idles) { ask(idle[--idles], queue[from++ & ((1 << 22) - 1)]); waiting--; }
      if (next >= end && !waiting && idles == count) break;
      if (t > patience) { errors += waiting + count - idles; break; }
    }
    double wake = hold ? end : next < end ? next : t + 100; if (wake <= t) wake = t + 0.01;
    struct itimerspec at = {.it_value = {(time_t)(wake / 1e3), (long)(fmod(wake, 1e3) * 1e6)}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, 0);
    int n = epoll_wait(ep, evs, 1024, 100);
    for (int i = 0; i < n; i++) {
      if (!evs[i].data.ptr) { long ticks; if (read(timer, &ticks, 8) < 0) continue; continue; }
      Conn *c = evs[i].data.ptr; int was_busy = c->busy;
      if (take(c, ep) && was_busy) idle[idles++] = c;
    }
  }
  printf("{\"sent\":%ld,\"done\":%ld,\"errors\":%ld,\"p50\":%.4f,\"p90\":%.4f,\"p99\":%.4f,\"most\":%.3f}\n", sent, done, errors,
    quantile(0.5), quantile(0.9), quantile(0.99), most);
}
