/* SPDX-License-Identifier: MIT */
/*
 * host_probe.c - read the machine's own descriptions of itself: /proc, /sys, uname.
 *
 * Nested paging is what the loaded KVM module says it uses, never what the CPU could do: a host whose KVM
 * shadows in software must not be mistaken for one with EPT. Nothing here needs privileges, and nothing
 * is opened for writing but /dev/kvm, which is closed at once.
 */
#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <cpuid.h>

#include "version.h"

static const struct host_field fields[] = {
#define FIELD(key, title, member)                                                                  \
	{                                                                                          \
		key, title, offsetof(struct host_info, member),                                    \
			sizeof(((struct host_info *)0)->member)                                    \
	}
	FIELD("cpu", "CPU", cpu),
	FIELD("cpus", "CPUs", cpus),
	FIELD("memory", "memory", memory),
	FIELD("kernel", "kernel", kernel),
	FIELD("hypervisor", "running under", hypervisor),
	FIELD("kvm_module", "KVM vendor module", kvm_module),
	FIELD("nested_paging", "nested paging", nested_paging),
	FIELD("kvm_device", "/dev/kvm", kvm_device),
	FIELD("thp", "transparent huge pages", thp),
	FIELD("ksm", "page merging (KSM)", ksm),
	FIELD("gnomon", "gnomon", gnomon),
	FIELD("compiler", "compiler", compiler),
#undef FIELD
};

const struct host_field *host_field(unsigned i)
{
	return i < sizeof(fields) / sizeof(fields[0]) ? &fields[i] : NULL;
}

/* The first line of a file, without its newline. False: not readable. */
static bool read_line(const char *path, char *out, size_t bytes)
{
	FILE *f = fopen(path, "re");
	bool ok;

	if (!f)
		return false;
	ok = fgets(out, (int)bytes, f) != NULL;
	fclose(f);
	if (ok)
		out[strcspn(out, "\n")] = '\0';
	return ok;
}

/* The text after "key :" in a /proc file of such lines. */
static bool read_key(const char *path, const char *key, char *out, size_t bytes)
{
	char line[512];
	FILE *f = fopen(path, "re");
	bool found = false;

	if (!f)
		return false;
	while (!found && fgets(line, sizeof(line), f)) {
		char *colon = strchr(line, ':');

		if (strncmp(line, key, strlen(key)) != 0 || !colon)
			continue;
		colon += 1 + strspn(colon + 1, " \t");
		colon[strcspn(colon, "\n")] = '\0';
		snprintf(out, bytes, "%.*s", (int)bytes - 1, colon);
		found = true;
	}
	fclose(f);
	return found;
}

/* "always [madvise] never": the word in brackets. */
static void keep_bracketed(char *text)
{
	char *open = strchr(text, '['), *close = open ? strchr(open, ']') : NULL;

	if (!close)
		return;
	*close = '\0';
	memmove(text, open + 1, strlen(open + 1) + 1);
}

static void probe_hypervisor(struct host_info *host)
{
	unsigned a, b, c, d;
	char vendor[13];

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 31))) {
		snprintf(host->hypervisor, sizeof(host->hypervisor), "no hypervisor");
		return;
	}
	/* Leaves from 0x40000000 belong to the hypervisor; the vendor is in EBX, ECX, EDX. */
	__cpuid(0x40000000, a, b, c, d);
	memcpy(vendor, &b, 4);
	memcpy(vendor + 4, &c, 4);
	memcpy(vendor + 8, &d, 4);
	vendor[12] = '\0';
	for (char *at = vendor; *at; at++)
		if (*at < ' ' || *at > '~')
			*at = ' ';
	snprintf(host->hypervisor, sizeof(host->hypervisor), "a hypervisor (%s)",
		 vendor[0] && vendor[0] != ' ' ? vendor : "unnamed");
}

static void probe_kvm(struct host_info *host)
{
	static const struct {
		const char *module, *parameter, *name;
	} vendors[] = {
		{ "kvm_intel", "/sys/module/kvm_intel/parameters/ept", "ept" },
		{ "kvm_amd", "/sys/module/kvm_amd/parameters/npt", "npt" },
		{ "kvm_pvm", NULL, "shadow paging" },
	};
	char text[16], path[64];
	int fd;

	snprintf(host->kvm_module, sizeof(host->kvm_module), "none");
	snprintf(host->nested_paging, sizeof(host->nested_paging), "no (no KVM vendor module)");
	for (size_t i = 0; i < sizeof(vendors) / sizeof(vendors[0]); i++) {
		snprintf(path, sizeof(path), "/sys/module/%s", vendors[i].module);
		if (access(path, F_OK))
			continue;
		snprintf(host->kvm_module, sizeof(host->kvm_module), "%s", vendors[i].module);
		if (!vendors[i].parameter)
			snprintf(host->nested_paging, sizeof(host->nested_paging),
				 "software (%s shadows guest tables)", vendors[i].module);
		else if (!read_line(vendors[i].parameter, text, sizeof(text)))
			snprintf(host->nested_paging, sizeof(host->nested_paging),
				 "unknown (%s is not readable)", vendors[i].parameter);
		else if (text[0] == 'Y' || text[0] == '1')
			snprintf(host->nested_paging, sizeof(host->nested_paging), "yes (%s)",
				 vendors[i].name);
		else
			snprintf(host->nested_paging, sizeof(host->nested_paging),
				 "software (%s=0: KVM shadows guest tables)", vendors[i].name);
		break;
	}
	fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (fd >= 0) {
		snprintf(host->kvm_device, sizeof(host->kvm_device), "can be opened");
		close(fd);
	} else {
		snprintf(host->kvm_device, sizeof(host->kvm_device), "not usable: %s",
			 strerror(errno));
	}
}

void host_probe(struct host_info *host)
{
	struct utsname uts;
	char text[256];

	memset(host, 0, sizeof(*host));
	read_key("/proc/cpuinfo", "model name", host->cpu, sizeof(host->cpu));
	snprintf(host->cpus, sizeof(host->cpus), "%ld", sysconf(_SC_NPROCESSORS_ONLN));
	if (read_key("/proc/meminfo", "MemTotal", text, sizeof(text)))
		snprintf(host->memory, sizeof(host->memory), "%.1f GiB",
			 strtod(text, NULL) / (1 << 20));
	if (!uname(&uts))
		snprintf(host->kernel, sizeof(host->kernel), "%.40s %.100s", uts.sysname,
			 uts.release);
	probe_hypervisor(host);
	probe_kvm(host);
	if (read_line("/sys/kernel/mm/transparent_hugepage/enabled", text, sizeof(text))) {
		keep_bracketed(text);
		snprintf(host->thp, sizeof(host->thp), "%.60s", text);
	}
	if (read_line("/sys/kernel/mm/ksm/run", text, sizeof(text)))
		snprintf(host->ksm, sizeof(host->ksm), "%s",
			 text[0] == '1'	  ? "running"
			 : text[0] == '2' ? "unmerged"
					  : "off");
	snprintf(host->gnomon, sizeof(host->gnomon), "%s", GN_VERSION);
	snprintf(host->compiler, sizeof(host->compiler), "%.90s",
#ifdef __clang__
		 __VERSION__
#else
		 "gcc " __VERSION__
#endif
	);
}
