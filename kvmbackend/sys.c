/* SPDX-License-Identifier: MIT */
/*
 * sys.c - /dev/kvm and its ioctls, with errors that teach.
 *
 * A failing call is told by name, with its errno and, where one is known, what to do about it: the reader of the
 * message often sits in a container or a cloud VM and did not write this program.
 *
 * The kick signal. KVM_RUN is left early only by a signal, so this room needs one. A handler that does nothing is
 * installed for it unless the program has one; a thread that runs a guest unblocks it and puts the mask back.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "machine.h"

/* What to do; the first row that fits. A row without @what fits any call, one without @error any errno. */
static const struct {
	const char *what;
	int error;
	const char *advice;
} hints[] = {
	{ "open", ENOENT,
	  "this kernel has no KVM, or the machine offers no virtualization to it: load kvm_intel "
	  "or kvm_amd, "
	  "or in a container or VM have the host pass the device" },
	{ "open", EACCES,
	  "join the group that owns the device (often kvm), or have it passed with read and write "
	  "access" },
	{ "open", EPERM, "a container's device rules forbid it: have the device passed to it" },
	{ "open", ENODEV, "the KVM module is loaded without a usable vendor module" },
	{ "open", ENXIO, "the KVM module is loaded without a usable vendor module" },
	{ "userfaultfd", EPERM,
	  "guest memory on demand needs it for faults inside the kernel: run as root, allow "
	  "reading "
	  "/dev/userfaultfd, or set vm.unprivileged_userfaultfd=1" },
	{ "userfaultfd", ENOSYS, "this kernel is built without userfaultfd" },
	{ "KVM_CREATE_VM", EBUSY,
	  "another hypervisor on this machine holds the CPU's virtualization" },
	{ "KVM_CREATE_VCPU", EEXIST, "the kernel knows this vCPU already" },
	{ "KVM_SET_USER_MEMORY_REGION", EINVAL,
	  "too many memory slots, or a range the kernel refuses" },
	{ "mmap", ENOMEM,
	  "memory is short, or vm.max_map_count is too low for so scattered a guest" },
	{ NULL, ENOMEM, "the host is short of memory" },
	{ NULL, EMFILE, "too many open files: raise ulimit -n" },
	{ NULL, ENFILE, "too many open files on this machine" },
	{ NULL, ENOTTY, "this kernel's KVM does not know the call" },
};

int gn_kvm_sys_fail(char *why, size_t why_bytes, const char *what, int error)
{
	const char *advice = NULL;

	for (size_t i = 0; i < sizeof(hints) / sizeof(hints[0]) && !advice; i++)
		if (hints[i].error == error &&
		    (!hints[i].what || !strncmp(what, hints[i].what, strlen(hints[i].what))))
			advice = hints[i].advice;
	if (why_bytes)
		snprintf(why, why_bytes, "%s: %s%s%s", what, strerror(error), advice ? ": " : "",
			 advice ? advice : "");
	return -error;
}

int gn_kvm_ioctl(int fd, unsigned long request, void *argument)
{
	int result;

	do
		result = ioctl(fd, request, argument);
	while (result < 0 && errno == EINTR);
	return result < 0 ? -errno : result;
}

int gn_kvm_ioctl_value(int fd, unsigned long request, unsigned long value)
{
	int result;

	do
		result = ioctl(fd, request, value);
	while (result < 0 && errno == EINTR);
	return result < 0 ? -errno : result;
}

int gn_kvm_sys_open(const char *path, int *fd, char *why, size_t why_bytes)
{
	char what[128];
	int version;

	*fd = open(path, O_RDWR | O_CLOEXEC);
	if (*fd < 0) {
		int error = errno;

		snprintf(what, sizeof(what), "open %s", path);
		gn_kvm_sys_fail(why, why_bytes, what, error);
		return error == ENOENT || error == ENXIO ? -ENODEV
		       : error == EPERM			 ? -EACCES
							 : -error;
	}
	version = gn_kvm_ioctl_value(*fd, KVM_GET_API_VERSION, 0);
	if (version == KVM_API_VERSION)
		return 0;
	close(*fd);
	*fd = -1;
	if (version < 0)
		snprintf(why, why_bytes, "%s is not KVM: KVM_GET_API_VERSION: %s", path,
			 strerror(-version));
	else
		snprintf(why, why_bytes, "%s speaks KVM API %d; this program needs %d", path,
			 version, KVM_API_VERSION);
	return -ENODEV;
}

int gn_kvm_sys_capability(int fd, unsigned long capability)
{
	int value = gn_kvm_ioctl_value(fd, KVM_CHECK_EXTENSION, capability);

	return value > 0 ? value : 0;
}

uint64_t gn_kvm_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* ---- The kick signal -------------------------------------------------------------------------------------- */

static void kicked(int signal)
{
	(void)signal;
}

static void install_handler(void)
{
	struct sigaction action;

	if (sigaction(GN_KVM_SIGNAL, NULL, &action) ||
	    (action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN))
		return;
	memset(&action, 0, sizeof(action));
	action.sa_handler = kicked; /* without SA_RESTART: KVM_RUN shall return */
	sigaction(GN_KVM_SIGNAL, &action, NULL);
}

void gn_kvm_signal_begin(sigset_t *old)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	sigset_t kick;

	pthread_once(&once, install_handler);
	sigemptyset(&kick);
	sigaddset(&kick, GN_KVM_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &kick, old);
}

void gn_kvm_signal_end(const sigset_t *old)
{
	pthread_sigmask(SIG_SETMASK, old, NULL);
}

int gn_kvm_alarm(uint64_t ns, timer_t *alarm)
{
	const struct timespec period = { (time_t)(ns / 1000000000), (long)(ns % 1000000000) };
	const struct itimerspec each = { period, period };
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = GN_KVM_SIGNAL };

	event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
	if (timer_create(CLOCK_MONOTONIC, &event, alarm))
		return -errno;
	timer_settime(*alarm, 0, &each, NULL); /* fails for bad arguments only */
	return 0;
}
