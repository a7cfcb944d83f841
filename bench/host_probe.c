/* SPDX-License-Identifier: MIT */
/*
 * host_probe.c - read the machine's own descriptions of itself: /proc, /sys, uname.
 *
 * Nested paging is what the loaded KVM module says it uses, never what the CPU could do: a host whose KVM
 * shadows in software must not be mistaken for one with EPT. Nothing here needs privileges, and nothing
 * is opened for writing but /dev/kvm, by its own probe.
 */
#include "host.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <cpuid.h>

#include <gnomon/kvm.h>

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

bool host_read_key(const char *path, const char *key, char *out, size_t bytes)
{
	char line[512];
	FILE *f = fopen(path, "re");
	bool found = false;

	if (!f)
		return false;
	while (!found && fgets(line, sizeof(line), f)) {
		char *colon = line + strlen(key);

		if (strncmp(line, key, strlen(key)) != 0)
			continue;
		colon += strspn(colon, " \t");
		if (*colon != ':')
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

/* What KVM is, is the probe's to say (include/gnomon/kvm.h). */
static void probe_kvm(struct host_info *host)
{
	struct gn_kvm_host kvm;

	gn_kvm_probe(&kvm, false);
	snprintf(host->kvm_module, sizeof(host->kvm_module), "%s",
		 kvm.module[0] ? kvm.module : "none");
	if (!kvm.module[0])
		snprintf(host->nested_paging, sizeof(host->nested_paging),
			 "no (no KVM vendor module)");
	else if (kvm.paging == GN_KVM_PAGING_HARDWARE)
		snprintf(host->nested_paging, sizeof(host->nested_paging), "yes (%s)",
			 strcmp(kvm.module, "kvm_intel") == 0 ? "ept" : "npt");
	else if (kvm.paging == GN_KVM_PAGING_SOFTWARE)
		snprintf(host->nested_paging, sizeof(host->nested_paging),
			 "software (%s shadows guest tables)", kvm.module);
	else
		snprintf(host->nested_paging, sizeof(host->nested_paging),
			 "unknown (%s does not say)", kvm.module);
	if (kvm.usable)
		snprintf(host->kvm_device, sizeof(host->kvm_device), "usable");
	else
		snprintf(host->kvm_device, sizeof(host->kvm_device), "not usable: %.140s", kvm.why);
}

void host_probe(struct host_info *host)
{
	struct utsname uts;
	char text[256];

	memset(host, 0, sizeof(*host));
	host_read_key("/proc/cpuinfo", "model name", host->cpu, sizeof(host->cpu));
	snprintf(host->cpus, sizeof(host->cpus), "%ld", sysconf(_SC_NPROCESSORS_ONLN));
	if (host_read_key("/proc/meminfo", "MemTotal", text, sizeof(text)))
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
