/* SPDX-License-Identifier: MIT */
/*
 * sharing_ksm.c - take KSM, drive it, and have it put back whatever happens.
 *
 * The guardian is forked before the first setting is changed. It holds the lock and the reading end of a pipe whose
 * writing end only the bench has: end of file is the bench's end, by exit, signal or SIGKILL. It has a session of its own, so a
 * Ctrl-C or a kill of the bench's process group does not reach it.
 *
 * Settings are written in this order: pages_to_scan cannot be written while the advisor is on, so that comes after it
 * when they are put back, and first when they are taken; `run` comes last. Writing 2 to it undoes all merges, those of others as
 * well: that is done only if there were none when we came.
 */
#include "sharing_ksm.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#define FOLDER "/sys/kernel/mm/ksm/"
enum { VALUE_BYTES = 64 };

static const char *const setting_names[] = { "pages_to_scan", "sleep_millisecs", "use_zero_pages",
					     "smart_scan",    "advisor_mode",	 "run" };
enum { SETTINGS = sizeof(setting_names) / sizeof(setting_names[0]) };

struct sharing_ksm {
	char before[SETTINGS][VALUE_BYTES]; /* "": the kernel has no such setting */
	bool had_merges;
	int lock_fd, pipe_fd, schedstat_fd;
	pid_t guardian;
};

static int read_text(const char *name, char *out, size_t bytes)
{
	char path[128];
	ssize_t got;
	int fd;

	snprintf(path, sizeof(path), FOLDER "%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	got = read(fd, out, bytes - 1);
	close(fd);
	if (got < 0)
		return -EIO;
	out[got] = '\0';
	out[strcspn(out, "\n")] = '\0';
	return 0;
}

static uint64_t read_count(const char *name)
{
	char text[VALUE_BYTES];

	return read_text(name, text, sizeof(text)) ? 0 : strtoull(text, NULL, 10);
}

static int write_text(const char *name, const char *value)
{
	char path[128];
	int fd, err = 0;

	snprintf(path, sizeof(path), FOLDER "%s", name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, value, strlen(value)) < 0)
		err = -errno;
	close(fd);
	return err;
}

/* "[none] scan-time": the word in brackets. */
static void keep_chosen(char *text)
{
	char *open_at = strchr(text, '['), *close_at = open_at ? strchr(open_at, ']') : NULL;

	if (!close_at)
		return;
	*close_at = '\0';
	memmove(text, open_at + 1, strlen(open_at + 1) + 1);
}

static void remember(struct sharing_ksm *ksm)
{
	for (unsigned i = 0; i < SETTINGS; i++) {
		if (read_text(setting_names[i], ksm->before[i], VALUE_BYTES))
			ksm->before[i][0] = '\0';
		keep_chosen(ksm->before[i]);
	}
	ksm->had_merges = read_count("pages_shared") || read_count("ksm_zero_pages");
}

/* All of them are tried, also after one failed. */
static int put_back(const struct sharing_ksm *ksm)
{
	int err = ksm->had_merges ? 0 : write_text("run", "2");

	for (unsigned i = 0; i < SETTINGS; i++) {
		int failed = ksm->before[i][0] ? write_text(setting_names[i], ksm->before[i]) : 0;

		if (failed) {
			fprintf(stderr, "gnomon: " FOLDER "%s could not be put back to %s: %s\n",
				setting_names[i], ksm->before[i], strerror(-failed));
			err = failed;
		}
	}
	return err;
}

__attribute__((noreturn)) static void guard(const struct sharing_ksm *ksm, int pipe_fd)
{
	char byte;

	setsid();
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	while (read(pipe_fd, &byte, 1) < 0 && errno == EINTR)
		;
	_exit(put_back(ksm) ? 1 : 0);
}

/* The guardian keeps the lock until it has put everything back. */
static int start_guardian(struct sharing_ksm *ksm)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC))
		return -errno;
	ksm->guardian = fork();
	if (!ksm->guardian) {
		close(ends[1]);
		close(STDIN_FILENO);
		close(STDOUT_FILENO); /* who reads our results need not wait for the guardian */
		guard(ksm, ends[0]);
	}
	close(ends[0]);
	if (ksm->guardian < 0) {
		close(ends[1]);
		return -EAGAIN;
	}
	ksm->pipe_fd = ends[1];
	return 0;
}

/* The kernel thread's schedstat: its first number is nanoseconds on a CPU. -1: not found. */
static int open_schedstat(void)
{
	DIR *folder = opendir("/proc");
	struct dirent *entry;
	int found = -1;

	while (folder && found < 0 && (entry = readdir(folder))) {
		char path[300], name[32] = "";
		FILE *comm;

		if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
			continue;
		snprintf(path, sizeof(path), "/proc/%s/comm", entry->d_name);
		comm = fopen(path, "re");
		if (!comm)
			continue;
		if (fgets(name, sizeof(name), comm) && !strcmp(name, "ksmd\n")) {
			snprintf(path, sizeof(path), "/proc/%s/schedstat", entry->d_name);
			found = open(path, O_RDONLY | O_CLOEXEC);
		}
		fclose(comm);
	}
	if (folder)
		closedir(folder);
	return found;
}

static int check_free(struct sharing_ksm *ksm, char *why, size_t why_bytes)
{
	ksm->lock_fd = open(FOLDER "run", O_RDWR | O_CLOEXEC);
	if (ksm->lock_fd < 0) {
		int err = errno;

		snprintf(why, why_bytes, "KSM cannot be driven here: " FOLDER "run: %s",
			 strerror(err));
		return -err;
	}
	if (flock(ksm->lock_fd, LOCK_EX | LOCK_NB)) {
		snprintf(why, why_bytes, "another bench drives KSM at the moment");
		return -EBUSY;
	}
	if (read_count("run") == 1 && read_count("pages_to_scan") && read_count("pages_shared")) {
		snprintf(why, why_bytes,
			 "KSM is in use on this machine: its figures would be others' as well");
		return -EBUSY;
	}
	ksm->schedstat_fd = open_schedstat();
	if (ksm->schedstat_fd < 0) {
		snprintf(why, why_bytes, "KSM cannot be measured here: no schedstat of ksmd");
		return -ENOENT;
	}
	return 0;
}

static void release(struct sharing_ksm *ksm)
{
	if (ksm->schedstat_fd >= 0)
		close(ksm->schedstat_fd);
	if (ksm->lock_fd >= 0)
		close(ksm->lock_fd);
	free(ksm);
}

struct sharing_ksm *sharing_ksm_take(char *why, size_t why_bytes)
{
	struct sharing_ksm *ksm = calloc(1, sizeof(*ksm));

	if (!ksm) {
		snprintf(why, why_bytes, "out of memory");
		return NULL;
	}
	ksm->schedstat_fd = -1;
	if (check_free(ksm, why, why_bytes)) {
		release(ksm);
		return NULL;
	}
	remember(ksm);
	if (start_guardian(ksm)) {
		snprintf(why, why_bytes, "KSM is left alone: no process for its guardian");
		release(ksm);
		return NULL;
	}
	return ksm;
}

int sharing_ksm_give_back(struct sharing_ksm *ksm)
{
	int status = 1;

	close(ksm->pipe_fd);
	while (waitpid(ksm->guardian, &status, 0) < 0 && errno == EINTR)
		;
	release(ksm);
	return status ? -EIO : 0;
}

int sharing_ksm_start(struct sharing_ksm *ksm)
{
	static const char *const values[][2] = {
		{ "advisor_mode", "none" },   { "use_zero_pages", "1" },  { "smart_scan", "1" },
		{ "pages_to_scan", "10000" }, { "sleep_millisecs", "0" }, { "run", "1" },
	};

	(void)ksm;
	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		int err = write_text(values[i][0], values[i][1]);

		if (err && err != -ENOENT)
			return err;
	}
	return 0;
}

int sharing_ksm_stop(struct sharing_ksm *ksm)
{
	(void)ksm;
	return write_text("run", "0");
}

int sharing_ksm_forget(struct sharing_ksm *ksm)
{
	return ksm->had_merges ? write_text("run", "0") : write_text("run", "2");
}

void sharing_ksm_read(const struct sharing_ksm *ksm, struct sharing_ksm_counts *out)
{
	char text[128];
	ssize_t got = pread(ksm->schedstat_fd, text, sizeof(text) - 1, 0);

	text[got > 0 ? got : 0] = '\0';
	*out = (struct sharing_ksm_counts){
		.saved_pages = read_count("pages_sharing") + read_count("ksm_zero_pages"),
		.full_scans = read_count("full_scans"),
		.cpu_ns = strtoull(text, NULL, 10),
	};
}
