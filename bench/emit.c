/* SPDX-License-Identifier: MIT */
/*
 * emit.c - write to a temporary file in the same directory, rename at the end.
 */
#include "emit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int emit_open(struct emit *e, const char *path)
{
	mode_t mask;
	int fd;

	memset(e, 0, sizeof(*e));
	if (!strcmp(path, "-")) {
		e->file = stdout;
		return 0;
	}
	e->path = strdup(path);
	if (!e->path || asprintf(&e->temporary, "%s.XXXXXX", path) < 0) {
		free(e->path);
		return -ENOMEM;
	}
	fd = mkstemp(e->temporary);
	if (fd < 0) {
		int err = -errno;

		free(e->temporary);
		free(e->path);
		return err;
	}
	mask = umask(0);
	umask(mask);
	fchmod(fd, 0666 & ~mask); /* mkstemp makes files private; results are not secrets */
	e->file = fdopen(fd, "w");
	if (!e->file) {
		close(fd);
		emit_abort(e);
		return -ENOMEM;
	}
	return 0;
}

int emit_commit(struct emit *e)
{
	int err = 0;

	if (!e->temporary)
		return fflush(stdout) || ferror(stdout) ? -EIO : 0;
	if (ferror(e->file))
		err = -EIO;
	if (fflush(e->file) || fsync(fileno(e->file)))
		err = -errno;
	if (fclose(e->file) && !err)
		err = -errno;
	e->file = NULL;
	if (!err && rename(e->temporary, e->path))
		err = -errno;
	if (err) {
		emit_abort(e);
		return err;
	}
	free(e->temporary);
	free(e->path);
	return 0;
}

void emit_abort(struct emit *e)
{
	if (!e->temporary)
		return;
	if (e->file)
		fclose(e->file);
	unlink(e->temporary);
	free(e->temporary);
	free(e->path);
	e->temporary = e->path = NULL;
}

int emit_make_directory(const char *path)
{
	char *copy;
	int err = 0;

	if (!*path)
		return -ENOENT;
	copy = strdup(path);
	if (!copy)
		return -ENOMEM;
	for (char *at = copy + 1; !err; at++) {
		char kept = *at;

		if (kept && kept != '/')
			continue;
		*at = '\0';
		if (mkdir(copy, 0777) && errno != EEXIST)
			err = -errno;
		*at = kept;
		if (!kept)
			break;
	}
	if (!err) {
		struct stat st;

		if (stat(path, &st))
			err = -errno;
		else if (!S_ISDIR(st.st_mode))
			err = -ENOTDIR;
	}
	free(copy);
	return err;
}
