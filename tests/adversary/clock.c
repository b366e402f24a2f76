/* The wall clock of a trial's processes, which a step moves: preloaded (LD_PRELOAD), it adds to the system's the
 * seconds that stand as a double at the start of the file ADVERSARY_CLOCK. Waits until a moment of that clock are
 * waits until the same moment of the system's. The monotonic clock is left alone, as by a real jump. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

static volatile double *jump;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("ADVERSARY_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *page = mmap(NULL, sizeof(double), PROT_READ, MAP_SHARED, fd, 0);
    if (page != MAP_FAILED)
        jump = page;
    close(fd);
}

static void add(struct timespec *at, double seconds)
{
    double whole = floor(seconds);
    at->tv_sec += (time_t)whole;
    at->tv_nsec += (long)((seconds - whole) * 1e9);
    if (at->tv_nsec >= 1000000000L) {
        at->tv_sec += 1;
        at->tv_nsec -= 1000000000L;
    }
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) \
        real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

int clock_gettime(clockid_t clock, struct timespec *at)
{
    REAL(clock_gettime);
    int failed = real(clock, at);
    if (!failed && jump && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        add(at, *jump);
    return failed;
}

time_t time(time_t *out)
{
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    if (out)
        *out = at.tv_sec;
    return at.tv_sec;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone)
{
    struct timespec at;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &at);
    out->tv_sec = at.tv_sec;
    out->tv_usec = at.tv_nsec / 1000;
    return 0;
}

int timespec_get(struct timespec *out, int base)
{
    clock_gettime(CLOCK_REALTIME, out);
    return base;
}

int sem_timedwait(sem_t *restrict sem, const struct timespec *restrict until)
{
    REAL(sem_timedwait);
    struct timespec at = *until;
    if (jump)
        add(&at, -*jump);
    return real(sem, &at);
}

int pthread_mutex_timedlock(pthread_mutex_t *restrict mutex, const struct timespec *restrict until)
{
    REAL(pthread_mutex_timedlock);
    struct timespec at = *until;
    if (jump)
        add(&at, -*jump);
    return real(mutex, &at);
}

/* By which clock a condition waits is not told; no machine has been up for 30 years. */
int pthread_cond_timedwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until)
{
    static __typeof__(&pthread_cond_timedwait) real;
    if (!real) {
        real = (__typeof__(&pthread_cond_timedwait))dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
        if (!real)
            real = (__typeof__(&pthread_cond_timedwait))dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    }
    struct timespec at = *until;
    if (jump && at.tv_sec > 1000000000)
        add(&at, -*jump);
    return real(cond, mutex, &at);
}

int cnd_timedwait(cnd_t *restrict cond, mtx_t *restrict mutex, const struct timespec *restrict until)
{
    REAL(cnd_timedwait);
    struct timespec at = *until;
    if (jump)
        add(&at, -*jump);
    return real(cond, mutex, &at);
}
