// PID 1 of the lean guest, and its poweroff, reboot, halt and telnet-login.
//
// A process start costs a tenth of a second, and a touched page a millisecond,
// on hosts that emulate guest kernel code. So this is one small program without
// a C library instead of an init that runs scripts: it mounts, sets up the
// network, and starts nothing but the programs that stay.

#include <errno.h>
#include <fcntl.h>
#include <linux/reboot.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

// --- system calls ----------------------------------------------------------

static long call(long nr, long a, long b, long c, long d, long e) {
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    long ret;

    __asm__ volatile("syscall"
                     : "=a"(ret)
                     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return ret;
}

#define CALL(nr, a, b, c, d) call(__NR_##nr, (long)(a), (long)(b), (long)(c), (long)(d), 0)

// The child shares our memory until it executes: no page is copied. It has a
// stack of its own, because it would overwrite what we return to.
static long spawn_on(char* stack_end, int (*child)(void*), void* arg) {
    const long clone_vm = 0x100, clone_vfork = 0x4000, sigchld = SIGCHLD;
    long ret;
    register void* fn __asm__("r12") = (void*)child;
    register void* data __asm__("r13") = arg;

    __asm__ volatile(
        "xor %%r10d, %%r10d\n\t"
        "syscall\n\t"
        "test %%eax, %%eax\n\t"
        "jnz 1f\n\t"
        "xor %%ebp, %%ebp\n\t"
        "mov %%r13, %%rdi\n\t"
        "call *%%r12\n\t"
        "mov %%eax, %%edi\n\t"
        "mov %4, %%eax\n\t"
        "syscall\n"
        "1:"
        : "=a"(ret)
        : "a"((long)__NR_clone), "D"(clone_vm | clone_vfork | sigchld), "S"(stack_end),
          "i"(__NR_exit), "d"(0L), "r"(fn), "r"(data)
        : "rcx", "r10", "r11", "memory");
    return ret;
}

// --- strings ---------------------------------------------------------------

static unsigned long length(const char* s) {
    unsigned long n = 0;

    while (s[n]) n++;
    return n;
}

static int equal(const char* a, const char* b) {
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

// The compiler may ask for these two.
void* memset(void* to, int c, unsigned long n) {
    for (char* p = to; n--; p++) *p = (char)c;
    return to;
}

void* memcpy(void* to, const void* from, unsigned long n) {
    char* p = to;
    const char* q = from;

    while (n--) *p++ = *q++;
    return to;
}

static long mount_at(const char* path, const char* type, unsigned long flags) {
    return call(__NR_mount, (long)(type ? type : "none"), (long)path, (long)type, (long)flags, 0);
}

static void say(const char* s) {
    CALL(write, 1, s, length(s), 0);
}

// Reads a small file as a string; it is empty when the file cannot be read.
static long slurp(const char* path, char* to, unsigned long size) {
    long fd = CALL(open, path, O_RDONLY | O_CLOEXEC, 0, 0);
    unsigned long have = 0;

    while (fd >= 0 && have < size - 1) {
        long n = CALL(read, fd, to + have, size - 1 - have, 0);

        if (n <= 0) break;
        have += (unsigned long)n;
    }
    to[have] = 0;
    if (fd >= 0) CALL(close, fd, 0, 0, 0);
    return (long)have;
}

// The value of the command line option `name` (with its '='), ended by a space.
static const char* option(const char* cmdline, const char* name) {
    for (const char* p = cmdline; *p;) {
        const char* q = name;
        const char* word = p;

        while (*q && *p == *q) {
            p++;
            q++;
        }
        if (!*q) return p;
        for (p = word; *p && *p != ' ' && *p != '\n'; p++)
            ;
        while (*p == ' ' || *p == '\n') p++;
    }
    return NULL;
}

static unsigned long copy_word(char* to, unsigned long size, const char* from) {
    unsigned long n = 0;

    while (from[n] && from[n] != ' ' && from[n] != '\n' && n < size - 1) {
        to[n] = from[n];
        n++;
    }
    to[n] = 0;
    return n;
}

// --- network ---------------------------------------------------------------

// Parses a.b.c.d[/bits] into network byte order. Returns 0 when it is wrong.
static int parse_address(const char* s, unsigned int* address, unsigned int* bits) {
    unsigned int value = 0;

    for (int i = 0; i < 4; i++) {
        unsigned int byte = 0;

        if (*s < '0' || *s > '9') return 0;
        while (*s >= '0' && *s <= '9') byte = byte * 10 + (unsigned int)(*s++ - '0');
        if (byte > 255 || (i < 3 && *s++ != '.')) return 0;
        value |= byte << (8 * i);
    }
    *address = value;
    *bits = 24;
    if (*s == '/') {
        *bits = 0;
        for (s++; *s >= '0' && *s <= '9'; s++) *bits = *bits * 10 + (unsigned int)(*s - '0');
    }
    return *bits <= 32;
}

static struct sockaddr_in inet(unsigned int address) {
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {address}};

    return in;
}

static long interface(long fd, const char* name, unsigned long what, unsigned int address) {
    struct ifreq request = {0};
    struct sockaddr_in in = inet(address);

    memcpy(request.ifr_name, name, length(name));
    if (what == SIOCSIFFLAGS)
        request.ifr_flags = IFF_UP | IFF_RUNNING;
    else
        memcpy(&request.ifr_addr, &in, sizeof(in));
    return CALL(ioctl, fd, what, &request, 0);
}

static int has_interface(const char* name) {
    struct ifreq request = {0};
    long fd = CALL(socket, AF_INET, SOCK_DGRAM, 0, 0);
    long ret;

    memcpy(request.ifr_name, name, length(name));
    ret = CALL(ioctl, fd, SIOCGIFFLAGS, &request, 0);
    CALL(close, fd, 0, 0, 0);
    return ret == 0;
}

static void set_up_network(const char* ip, const char* gateway) {
    long fd = CALL(socket, AF_INET, SOCK_DGRAM, 0, 0);
    unsigned int address, bits, unused;

    interface(fd, "lo", SIOCSIFFLAGS, 0);
    if (ip && parse_address(ip, &address, &bits)) {
        unsigned int mask = bits ? __builtin_bswap32(~0U << (32 - bits)) : 0;

        interface(fd, "eth0", SIOCSIFADDR, address);
        interface(fd, "eth0", SIOCSIFNETMASK, mask);
        if (interface(fd, "eth0", SIOCSIFFLAGS, 0) < 0) say("ivmm-guest: eth0 does not come up\n");
        if (gateway && parse_address(gateway, &address, &unused)) {
            struct sockaddr_in any = inet(0), via = inet(address);
            struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};

            memcpy(&route.rt_dst, &any, sizeof(any));
            memcpy(&route.rt_genmask, &any, sizeof(any));
            memcpy(&route.rt_gateway, &via, sizeof(via));
            if (CALL(ioctl, fd, SIOCADDRT, &route, 0) < 0)
                say("ivmm-guest: the gateway cannot be used\n");
        }
    } else if (ip) {
        say("ivmm-guest: ivmm.ip= is not an address\n");
    }
    CALL(close, fd, 0, 0, 0);
}

// --- processes -------------------------------------------------------------

struct program {
    const char* path;
    const char* argv[10];
    const char* terminal;  // its controlling terminal; NULL: none, log to the console
    unsigned int port;     // where it listens
    long pid;
};

// A shell on each console= of the command line: a terminal that is none may be
// shown on the same screen as one that is.
static struct program shells[] = {
    {"/bin/busybox", {"-sh"}, "/dev/ttyS0", 0, 0},
    {"/bin/busybox", {"-sh"}, "/dev/hvc0", 0, 0},
};

// Sessions keep our environment (-e, and login -p below): it may carry what the
// host demands of programs, such as GLIBC_TUNABLES.
static struct program services[] = {
    {"/bin/busybox", {"httpd", "-f", "-h", "/srv/www"}, NULL, 80, 0},
    {"/bin/busybox", {"telnetd", "-F", "-l", "/sbin/telnet-login"}, NULL, 23, 0},
    {"/usr/sbin/dropbear", {"dropbear", "-F", "-e", "-r", "/etc/dropbear/host_key"}, NULL, 22, 0},
};

static struct program dhcp = {
    "/bin/busybox", {"udhcpc", "-f", "-i", "eth0", "-s", "/etc/udhcpc.script"}, NULL, 0, 0,
};

static const char** environment;
static char child_stack[4096] __attribute__((aligned(16)));

static int run_child(void* arg) {
    const struct program* p = arg;
    unsigned long none = 0;

    CALL(rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof(none));
    CALL(setsid, 0, 0, 0, 0);
    if (p->terminal) {
        long fd = CALL(open, p->terminal, O_RDWR, 0, 0);

        if (fd < 0) return 127;
        CALL(ioctl, fd, TIOCSCTTY, 1, 0);
        for (long i = 0; i < 3; i++) CALL(dup2, fd, i, 0, 0);
        if (fd > 2) CALL(close, fd, 0, 0, 0);
        CALL(chdir, "/root", 0, 0, 0);
    }
    CALL(execve, p->path, p->argv, environment, 0);
    return 127;
}

static void spawn(struct program* p) {
    p->pid = spawn_on(child_stack + sizeof(child_stack), run_child, p);
}

// Whether console=NAME or console=NAME,SETTINGS is on the command line.
static int is_console(const char* cmdline, const char* terminal) {
    const char* name = terminal + sizeof("/dev/") - 1;

    while ((cmdline = option(cmdline, "console="))) {
        unsigned long n = 0;

        while (name[n] && cmdline[n] == name[n]) n++;
        if (!name[n] &&
            (!cmdline[n] || cmdline[n] == ',' || cmdline[n] == ' ' || cmdline[n] == '\n'))
            return 1;
        while (*cmdline && *cmdline != ' ') cmdline++;
        while (*cmdline == ' ') cmdline++;
    }
    return 0;
}

// A terminal is there when its driver answers; a missing UART has a node, too.
static int usable(const char* terminal) {
    struct termios settings;
    long fd = CALL(open, terminal, O_RDWR | O_NONBLOCK | O_NOCTTY, 0, 0);
    long ret;

    if (fd < 0) return 0;
    ret = CALL(ioctl, fd, TCGETS, &settings, 0);
    CALL(close, fd, 0, 0, 0);
    return ret == 0;
}

// A port that cannot be bound although addresses may be shared has a listener.
static int services_are_up(void) {
    unsigned int up = 0;

    for (unsigned int i = 0; i < COUNT(services); i++) {
        struct sockaddr_in any = {
            .sin_family = AF_INET,
            .sin_port = __builtin_bswap16((unsigned short)services[i].port),
        };
        const int on = 1;
        long fd = CALL(socket, AF_INET, SOCK_STREAM, 0, 0);

        call(__NR_setsockopt, fd, SOL_SOCKET, SO_REUSEADDR, (long)&on, sizeof(on));
        up += CALL(bind, fd, &any, sizeof(any), 0) == -EADDRINUSE;
        CALL(close, fd, 0, 0, 0);
    }
    return up == COUNT(services);
}

// Collects what has ended, and starts again what must not end.
static void reap(void) {
    for (;;) {
        long pid = CALL(wait4, -1, NULL, WNOHANG, NULL);

        if (pid <= 0) return;
        for (unsigned int i = 0; i < COUNT(shells); i++)
            if (shells[i].pid == pid) spawn(&shells[i]);
        for (unsigned int i = 0; i < COUNT(services); i++)
            if (services[i].pid == pid) spawn(&services[i]);
    }
}

static long wait_signal(unsigned long set, long milliseconds) {
    const struct timespec limit = {
        .tv_sec = milliseconds / 1000,
        .tv_nsec = milliseconds % 1000 * 1000000,
    };

    return CALL(rt_sigtimedwait, &set, NULL, milliseconds < 0 ? NULL : &limit, sizeof(set));
}

// Waits until no child is left, a second at most.
static void drain(unsigned long signals) {
    for (int i = 0; i < 20; i++) {
        long pid;

        while ((pid = CALL(wait4, -1, NULL, WNOHANG, NULL)) > 0)
            ;
        if (pid == -ECHILD) return;
        wait_signal(signals, 50);
    }
}

// The kernel knows of the machine's power switch from ACPI only. Without it, do
// what ACPI would: ask for the state S5 (5 << 2) to be entered (1 << 5).
static void power_off_without_acpi(void) {
    const unsigned short sleep_control = 0x600;

    if (CALL(ioperm, sleep_control, 1, 1, 0) == 0)
        __asm__ volatile("outb %b0, %1" ::"a"(5 << 2 | 1 << 5), "Nd"(sleep_control));
}

static void shut_down(unsigned long signals, unsigned long how) {
    say("ivmm-guest: going down\n");
    CALL(kill, -1, SIGTERM, 0, 0);
    CALL(kill, -1, SIGHUP, 0, 0);  // interactive shells ignore SIGTERM
    CALL(kill, -1, SIGCONT, 0, 0);
    drain(signals);
    CALL(kill, -1, SIGKILL, 0, 0);
    drain(signals);
    CALL(sync, 0, 0, 0, 0);
    // Read-only is as good as unmounted: the file system is marked clean.
    if (mount_at("/", NULL, MS_REMOUNT | MS_RDONLY) < 0)
        say("ivmm-guest: the root file system stays busy\n");
    if (how == LINUX_REBOOT_CMD_POWER_OFF && CALL(access, "/sys/firmware/acpi", 0, 0, 0) < 0)
        power_off_without_acpi();
    CALL(reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, how, 0);
    for (;;) CALL(pause, 0, 0, 0, 0);
}

// --- as PID 1 --------------------------------------------------------------

static void start(const char* cmdline) {
    static char hostname[64];
    const char* ip = option(cmdline, "ivmm.ip=");
    const char* name = option(cmdline, "ivmm.hostname=");
    unsigned long n;

    n = name ? copy_word(hostname, sizeof(hostname), name) : 0;
    if (!n) {
        char file[64];

        slurp("/etc/hostname", file, sizeof(file));
        n = copy_word(hostname, sizeof(hostname), file);
    }
    CALL(sethostname, hostname, n, 0, 0);

    // First what somebody waits for at the console; the rest behind it.
    for (unsigned int i = 0; i < COUNT(shells); i++)
        if (is_console(cmdline, shells[i].terminal) && usable(shells[i].terminal))
            spawn(&shells[i]);

    mount_at("/sys", "sysfs", 0);
    CALL(mkdir, "/dev/pts", 0755, 0, 0);
    call(__NR_mount, (long)"devpts", (long)"/dev/pts", (long)"devpts", 0,
         (long)"gid=5,mode=620,ptmxmode=666");

    set_up_network(ip, option(cmdline, "ivmm.gw="));
    // ip= is the kernel's own static configuration.
    if (!ip && !option(cmdline, "ip=") && has_interface("eth0")) spawn(&dhcp);
    for (unsigned int i = 0; i < COUNT(services); i++) spawn(&services[i]);
}

static void run_as_init(void) {
    static char cmdline[2048];
    const unsigned long signals = 1UL << (SIGCHLD - 1) | 1UL << (SIGTERM - 1) |
                                  1UL << (SIGUSR1 - 1) | 1UL << (SIGUSR2 - 1) | 1UL << (SIGINT - 1);
    const unsigned long all = ~0UL;
    int ready = 0;

    CALL(rt_sigprocmask, SIG_SETMASK, &all, NULL, sizeof(all));
    CALL(reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_CAD_OFF, 0);
    mount_at("/proc", "proc", 0);
    slurp("/proc/cmdline", cmdline, sizeof(cmdline));
    start(cmdline);

    for (;;) {
        switch (wait_signal(signals, ready ? -1 : 100)) {
            case SIGCHLD:
                reap();
                break;
            case SIGUSR1:
                shut_down(signals, LINUX_REBOOT_CMD_HALT);
                break;
            case SIGUSR2:
                shut_down(signals, LINUX_REBOOT_CMD_POWER_OFF);
                break;
            case SIGTERM:
            case SIGINT:
                shut_down(signals, LINUX_REBOOT_CMD_RESTART);
                break;
            default:
                break;
        }
        if (!ready && services_are_up()) {
            say("ivmm-guest: ready\n");
            ready = 1;
        }
    }
}

// --- as a command ----------------------------------------------------------

static int run_as_command(const char* name) {
    static const struct {
        const char* name;
        int signal;
    } commands[] = {{"poweroff", SIGUSR2}, {"halt", SIGUSR1}, {"reboot", SIGTERM}};
    const char* base = name;

    for (const char* p = name; *p; p++)
        if (*p == '/') base = p + 1;
    for (unsigned int i = 0; i < COUNT(commands); i++)
        if (equal(base, commands[i].name)) return CALL(kill, 1, commands[i].signal, 0, 0) < 0;
    if (equal(base, "telnet-login")) {
        static const char* const login[] = {"login", "-p", NULL};

        CALL(execve, "/bin/busybox", login, environment, 0);
        return 127;
    }
    say("usage: poweroff | reboot | halt\n");
    return 2;
}

__attribute__((used, noreturn)) static void begin(const long* stack) {
    const long argc = stack[0];

    environment = (const char**)(stack + 1 + argc + 1);
    if (CALL(getpid, 0, 0, 0, 0) == 1) run_as_init();
    CALL(exit, argc > 0 ? run_as_command((const char*)stack[1]) : 2, 0, 0, 0);
    __builtin_unreachable();
}

__asm__(
    ".globl _start\n"
    "_start:\n\t"
    "xor %ebp, %ebp\n\t"
    "mov %rsp, %rdi\n\t"
    "and $-16, %rsp\n\t"
    "call begin\n");
