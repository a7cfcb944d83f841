/* SPDX-License-Identifier: MIT */
/*
 * init.c - the first and only program of the lab's initramfs (tests/lab/run.sh), linked statically.
 *
 * It loads KVM's modules, runs each command found in /lab/00, /lab/01, ... one after the other, and leaves the machine.
 * A command is a file of NUL-terminated arguments, so that no shell has to be in the lab and nothing needs quoting.
 *
 * The kernel hands NAME=VALUE words of its command line to this program's environment:
 *   LAB_MODULE  kvm-amd or kvm-intel        LAB_PARAMS  its parameters, e.g. npt=0
 *
 * What it says goes to the serial console, each line with "lab: " in front. The host learns the status twice:
 * from the line "lab: status N" and from the port of QEMU's isa-debug-exit device, which is given status + 1 (QEMU then
 * exits with 2 * value + 1; its own failures exit with 1, a guest that reset itself with 0, so neither is mistaken for a status).
 * Invariant: whatever happens, the machine ends; a lab that waits for a human is a lab that hangs.
 *
 * Deliberately absent: a shell, a log, parallel commands, devices beyond the console.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define EXIT_PORT    0xf4
#define BOCHS_PORT   0x8900
#define STATUS_MAX   126 /* status + 1 must fit the seven bits QEMU passes on */
#define STATUS_CANT  3	 /* the lab itself cannot do what was asked */
#define MAX_ARGS     64
#define CLOCK_FILE   "/sys/devices/system/clocksource/clocksource0/current_clocksource"
#define COMMAND_SIZE 16384

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
	va_list args;

	printf("lab: ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	fflush(stdout);
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

_Noreturn static void leave(int status)
{
	if (status > STATUS_MAX)
		status = STATUS_MAX;
	say("status %d", status);
	/* The exit port ends the machine at once: what the serial line has not sent by then is lost. */
	tcdrain(STDOUT_FILENO);
	if (ioperm(EXIT_PORT, 4, 1) == 0)
		outb((unsigned char)(status + 1), EXIT_PORT);
	/* No such device: another machine than QEMU's. This word to this port ends Bochs. */
	if (ioperm(BOCHS_PORT, 1, 1) == 0)
		for (const char *at = "Shutdown"; *at; at++)
			outb((unsigned char)*at, BOCHS_PORT);
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

static void mount_all(void)
{
	static const struct {
		const char *type, *at;
	} mounts[] = {
		{ "devtmpfs", "/dev" },
		{ "proc", "/proc" },
		{ "sysfs", "/sys" },
		{ "tmpfs", "/dev/shm" },
	};

	for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
		mkdir(mounts[i].at, 0755);
		if (mount(mounts[i].type, mounts[i].at, mounts[i].type, 0, NULL) &&
		    errno != EBUSY) {
			say("cannot mount %s: %s", mounts[i].at, strerror(errno));
			leave(STATUS_CANT);
		}
	}
}

/* The console: as bytes come, so that the host sees the lines it would see at home. */
static void open_console(void)
{
	struct termios t;
	int fd = open("/dev/console", O_RDWR);

	if (fd < 0)
		return;
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	if (fd > STDERR_FILENO)
		close(fd);
	fd = open("/dev/null", O_RDONLY);
	if (fd >= 0)
		dup2(fd, STDIN_FILENO);
	if (tcgetattr(STDOUT_FILENO, &t) == 0) {
		t.c_oflag &= ~(tcflag_t)OPOST;
		tcsetattr(STDOUT_FILENO, TCSANOW, &t);
	}
}

static void load_module(const char *name, const char *params)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/modules/%s.ko", name);
	fd = open(path, O_RDONLY);
	if (fd < 0 || (syscall(SYS_finit_module, fd, params, 0) && errno != EEXIST)) {
		say("cannot load %s.ko %s: %s", name, params, strerror(errno));
		leave(STATUS_CANT);
	}
	close(fd);
}

/* The kernel corrects its first, coarse measurement of the TSC's frequency a second or two after the boot. A VM made before
 * remembers the old one; where that is lower by more than 250 ppm, its later vCPUs get a TSC that stands at 0 (KVM's
 * kvm_set_tsc_khz(): this processor cannot scale, and the multiplier stays unset). So wait for the final clock. */
static void await_clock(void)
{
	for (int i = 0; i < 500; i++) {
		char name[16] = "";
		int fd = open(CLOCK_FILE, O_RDONLY);

		if (fd < 0)
			return;
		if (read(fd, name, sizeof(name) - 1) > 0 && !strcmp(name, "tsc\n")) {
			close(fd);
			return;
		}
		close(fd);
		usleep(10000);
	}
	say("the TSC did not become the clock in 5 s: its value in guests may be 0");
}

static void load_kvm(void)
{
	const char *module = getenv("LAB_MODULE"), *params = getenv("LAB_PARAMS");

	await_clock();
	load_module("irqbypass", "");
	load_module("kvm", "");
	load_module(module ? module : "kvm-amd", params ? params : "");
	if (access("/dev/kvm", R_OK | W_OK)) {
		say("%s is loaded, but there is no /dev/kvm: does the CPU model have SVM or VMX?",
		    module);
		leave(STATUS_CANT);
	}
	say("up after %.1f s: %s %s", seconds(), module, params ? params : "");
}

/* Fill @argv from a command file. False: no such command. */
static int read_command(unsigned index, char *buf, char **argv)
{
	char path[32];
	ssize_t bytes;
	int fd, argc = 0;

	snprintf(path, sizeof(path), "/lab/%02u", index);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		return 0;
	bytes = read(fd, buf, COMMAND_SIZE - 1);
	close(fd);
	if (bytes <= 0)
		return 0;
	buf[bytes] = '\0';
	for (char *at = buf; at < buf + bytes && argc < MAX_ARGS; at += strlen(at) + 1)
		argv[argc++] = at;
	argv[argc] = NULL;
	return argc > 0;
}

static int run(char **argv)
{
	double start = seconds();
	int wait_status = 0, status;
	pid_t pid;

	say("run %s", argv[0]);
	pid = fork();
	if (pid == 0) {
		execv(argv[0], argv);
		say("cannot run %s: %s", argv[0], strerror(errno));
		_exit(127);
	}
	while (pid > 0 && waitpid(pid, &wait_status, 0) < 0 && errno == EINTR)
		;
	kill(-1, SIGKILL); /* what the command left behind */
	while (waitpid(-1, NULL, 0) > 0)
		;
	status = pid < 0		    ? 127
		 : WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status)
					    : WEXITSTATUS(wait_status);
	say("end %s status %d after %.1f s%s%s", argv[0], status, seconds() - start,
	    status > 128 ? ": " : "", status > 128 ? strsignal(status - 128) : "");
	return status;
}

int main(void)
{
	static char buf[COMMAND_SIZE];
	char *argv[MAX_ARGS + 1];
	int status = 0;
	unsigned count = 0;

	mount_all();
	open_console();
	setenv("PATH", "/bin:/usr/bin", 1);
	setenv("HOME", "/tmp", 1);
	setenv("TERM", "dumb", 1); /* what comes out is read as a log */
	load_kvm();
	for (; read_command(count, buf, argv); count++) {
		int one = run(argv);

		if (status == 0)
			status = one;
	}
	if (count == 0) {
		say("no command in /lab");
		status = STATUS_CANT;
	}
	leave(status);
}
