/* SPDX-License-Identifier: MIT */
/*
 * daemon_template.c - memory images that many VMs begin with.
 *
 * A template is a file of the configuration, read once into a memfd that is sealed before anybody has it: whoever gets a descriptor can map
 * and read it, and nobody, we included, can change it any more. What stands in the way of a tenant is therefore the same as with a
 * domain: who is not named gets no descriptor.
 *
 * A VM asks before it registers: it has to have the memory before it exists, and what registers is a VM's agent. So a question names the
 * VM, and is answered by the rules of a registration; that a VM is over a template we know of its registration, and use for nothing but counts.
 *
 * What was given cannot be taken back. A template that a reload names no more, or whose file has changed, is *retired*: nobody gets it, it is
 * there as long as VMs registered over it are, and its memory as long as anybody has it mapped.
 *
 * Nobody is answered while a file is read.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon.h"

#define PAGE_BYTES 4096u
#define PIECE	   ((size_t)1 << 20)
#define SEALS	   (F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL)

/* Which file it is, and in which state. */
struct origin {
	dev_t device;
	ino_t inode;
	off_t bytes;
	struct timespec modified, changed;
};

struct gn_shared_template {
	char name[48];
	struct origin origin;
	int fd; /* only to read */
	bool is_retired;
	unsigned vm_count;
	struct gn_shared_template *next;
};

/* ---- The file ---------------------------------------------------------------------------------------------------- */

static struct origin origin_of(const struct stat *st)
{
	return (struct origin){ st->st_dev, st->st_ino, st->st_size, st->st_mtim, st->st_ctim };
}

static bool is_same(const struct origin *a, const struct origin *b)
{
	return a->device == b->device && a->inode == b->inode && a->bytes == b->bytes &&
	       a->modified.tv_sec == b->modified.tv_sec &&
	       a->modified.tv_nsec == b->modified.tv_nsec &&
	       a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec;
}

/* Opened, if it will do as a memory image. -errno, and @why: what is wrong with it. */
static int open_image(const char *path, struct origin *out, const char **why)
{
	/* Who waits for a FIFO's other end waits for ever. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;

	if (fd < 0 || fstat(fd, &st)) {
		int err = -errno;

		*why = strerror(-err);
		if (fd >= 0)
			close(fd);
		return err;
	}
	*why = !S_ISREG(st.st_mode)	 ? "it is no regular file"
	       : !st.st_size		 ? "it is empty"
	       : st.st_size % PAGE_BYTES ? "its size is no multiple of 4 KiB: it is no memory image"
					 : NULL;
	if (*why) {
		close(fd);
		return -EINVAL;
	}
	*out = origin_of(&st);
	return fd;
}

static bool is_zero(const uint8_t *page)
{
	return !page[0] && !memcmp(page, page + 1, PAGE_BYTES - 1);
}

/* Runs of pages that are not zeros, to their places: a page of zeros takes no memory before somebody reads it. */
static int put_piece(int to, const uint8_t *piece, size_t bytes, off_t at)
{
	for (size_t start = 0, end; start < bytes; start = end + PAGE_BYTES) {
		for (end = start; end < bytes && !is_zero(piece + end);)
			end += PAGE_BYTES;
		for (size_t done = start; done < end;) {
			ssize_t n = pwrite(to, piece + done, end - done, at + (off_t)done);

			if (n < 0 && errno != EINTR)
				return -errno;
			done += n > 0 ? (size_t)n : 0;
		}
	}
	return 0;
}

/* -EAGAIN: the file has become shorter. */
static int get_piece(int from, uint8_t *piece, size_t bytes, off_t at)
{
	for (size_t done = 0; done < bytes;) {
		ssize_t n = pread(from, piece + done, bytes - done, at + (off_t)done);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (!n)
			return -EAGAIN;
		done += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

static int copy_all(int from, int to, off_t bytes)
{
	uint8_t *piece = malloc(PIECE);
	int err = piece ? 0 : -ENOMEM;

	for (off_t at = 0; at < bytes && !err;) {
		/* Holes of the file are skipped where its filesystem says where they are. */
		off_t data = lseek(from, at, SEEK_DATA);
		size_t n;

		if (data < 0 && errno == ENXIO)
			break;
		if (data > at)
			at = data / PAGE_BYTES * PAGE_BYTES;
		if (at >= bytes) /* it has grown, which is found later */
			break;
		n = bytes - at < (off_t)PIECE ? (size_t)(bytes - at) : PIECE;
		err = get_piece(from, piece, n, at);
		if (!err)
			err = put_piece(to, piece, n, at);
		at += (off_t)n;
		gn_service_feed_watchdog();
	}
	free(piece);
	return err;
}

static int copy_image(int from, int to, const struct origin *origin)
{
	int err = copy_all(from, to, origin->bytes);
	struct origin after;
	struct stat st;

	if (err)
		return err;
	if (fstat(from, &st))
		return -errno;
	after = origin_of(&st);
	return is_same(&after, origin) ? 0 : -EAGAIN;
}

/* A sealed copy of the file @from, as a descriptor that can only read. -EAGAIN: it is another than it was. */
static int make_memory(int from, const struct origin *origin)
{
	int to = memfd_create("gnomon-template", MFD_CLOEXEC | MFD_ALLOW_SEALING), fd = -1, err;
	char path[32];

	if (to < 0)
		return -errno;
	err = ftruncate(to, origin->bytes) ? -errno : copy_image(from, to, origin);
	if (!err && fcntl(to, F_ADD_SEALS, SEALS))
		err = -errno;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", to);
	if (!err)
		fd = open(path, O_RDONLY | O_CLOEXEC);
	if (!err && fd < 0)
		err = -errno;
	close(to);
	return err ? err : fd;
}

/* ---- Which there are --------------------------------------------------------------------------------------------- */

static struct gn_shared_template *find_in(struct gn_shared_template *t, const char *name)
{
	while (t && (t->is_retired || strcmp(t->name, name) != 0))
		t = t->next;
	return t;
}

struct gn_shared_template *gn_shared_template_find(const struct gn_shared *d, const char *name)
{
	return find_in(d->templates, name);
}

static void template_free(struct gn_shared_template *t)
{
	close(t->fd);
	free(t);
}

static void free_all(struct gn_shared_template **list)
{
	while (*list) {
		struct gn_shared_template *t = *list;

		*list = t->next;
		template_free(t);
	}
}

/* @t, which is retired, if nobody is over it. */
static void let_go(struct gn_shared *d, struct gn_shared_template *t)
{
	struct gn_shared_template **at = &d->templates;

	if (t->vm_count)
		return;
	while (*at != t)
		at = &(*at)->next;
	*at = t->next;
	/* Of one that has the name now it is made again when somebody looks. */
	gn_metrics_forget(d->base.metrics, "template", t->name);
	template_free(t);
}

static int make(const char *name, int file, const struct origin *origin,
		struct gn_shared_template **list)
{
	struct gn_shared_template *t = calloc(1, sizeof(*t));
	int fd = t ? make_memory(file, origin) : -ENOMEM;

	if (fd < 0) {
		free(t);
		return fd;
	}
	snprintf(t->name, sizeof(t->name), "%s", name);
	t->origin = *origin;
	t->fd = fd;
	t->next = *list;
	*list = t;
	return 0;
}

/* The file of the configuration's @i-th template is fit; and read, if there is a @d that has not read it yet. */
static int take(struct gn_shared *d, const struct gn_shared_config *c, unsigned i, char *why,
		size_t why_bytes)
{
	const char *name = c->template_files.of[i].name, *path = c->template_files.of[i].text;
	const char *reason = "";
	struct gn_shared_template *known;
	struct origin origin;
	int fd = open_image(path, &origin, &reason), err = fd < 0 ? fd : 0;

	known = d && !err ? gn_shared_template_find(d, name) : NULL;
	if (d && !err && !(known && is_same(&known->origin, &origin))) {
		err = make(name, fd, &origin, &d->fresh_templates);
		reason = err == -EAGAIN ? "it changed while it was read" : strerror(-err);
	}
	if (err)
		snprintf(why, why_bytes, "[template %s]: file = %s: %s", name, path, reason);
	if (fd >= 0)
		close(fd);
	return err;
}

static int take_all(struct gn_shared *d, const struct gn_shared_config *c, char *why,
		    size_t why_bytes)
{
	int err = 0;

	for (unsigned i = 0; i < c->template_files.count && !err; i++)
		err = take(d, c, i, why, why_bytes);
	return err;
}

int gn_shared_templates_check(const void *config, char *why, size_t why_bytes)
{
	return take_all(NULL, config, why, why_bytes) ? -EINVAL : 0;
}

int gn_shared_templates_read(struct gn_shared *d, const struct gn_shared_config *config, char *why,
			     size_t why_bytes)
{
	int err = take_all(d, config, why, why_bytes);

	if (err)
		gn_shared_templates_discard(d);
	return err;
}

void gn_shared_templates_discard(struct gn_shared *d)
{
	free_all(&d->fresh_templates);
}

void gn_shared_templates_apply(struct gn_shared *d)
{
	for (struct gn_shared_template *t = d->templates, *next; t; t = next) {
		next = t->next;
		if (t->is_retired || (gn_shared_config_has_template(&d->config, t->name) &&
				      !find_in(d->fresh_templates, t->name)))
			continue;
		t->is_retired = true;
		let_go(d, t);
	}
	while (d->fresh_templates) {
		struct gn_shared_template *t = d->fresh_templates;

		d->fresh_templates = t->next;
		t->next = d->templates;
		d->templates = t;
	}
}

void gn_shared_templates_end(struct gn_shared *d)
{
	free_all(&d->templates);
	free_all(&d->fresh_templates);
}

/* ---- Who is over them ----------------------------------------------------------------------------------------------- */

const char *gn_shared_template_name(const struct gn_shared_template *t)
{
	return t->name;
}

void gn_shared_template_join(struct gn_shared_template *t)
{
	t->vm_count++;
}

void gn_shared_template_leave(struct gn_shared *d, struct gn_shared_template *t)
{
	t->vm_count--;
	if (t->is_retired)
		let_go(d, t);
}

bool gn_shared_template_admits(const struct gn_shared *d, const char *name, const char *vm,
			       struct gn_reply *reply)
{
	if (!gn_shared_template_find(d, name))
		gn_reply_fail(reply, "NoTemplate", "the configuration has no [template %s]", name);
	else if (!gn_shared_config_gives(&d->config, name, vm))
		gn_reply_fail(reply, "NotInTemplate",
			      "[template %s] of the configuration does not name %s", name, vm);
	return !reply->error_class;
}

/* Who asks for it as @vm. A name that is registered is that process's, which may ask over another connection. */
static void check_asker(struct gn_shared *d, struct gn_peer *p, const char *vm,
			struct gn_reply *reply)
{
	const struct gn_shared_vm *own = gn_peer_tag(p), *other = gn_shared_vm_find(d, vm);

	if (own && strcmp(own->name, vm) != 0)
		gn_reply_fail(reply, "InvalidArgument", "this connection is %s's", own->name);
	else if (other && other->pid != gn_peer_pid(p))
		gn_reply_fail(reply, "NameTaken", "a VM named %s is registered", vm);
	else if (d->base.is_stopping)
		gn_reply_fail(reply, "TryAgain", "the daemon is stopping");
}

static void give(struct gn_shared *d, const struct gn_shared_template *t, const char *vm,
		 struct gn_reply *reply)
{
	struct gn_json_writer *w;

	if (gn_reply_attach(reply, t->fd)) {
		gn_reply_fail(reply, "OutOfMemory", "descriptors have run out");
		return;
	}
	gn_json_begin_object(reply->writer, "return");
	gn_json_put_u64(reply->writer, "bytes", (uint64_t)t->origin.bytes);
	gn_json_end_object(reply->writer);
	w = gn_event_log_begin(d->base.log, "template-given");
	gn_json_put_text(w, "vm", vm);
	gn_json_put_text(w, "template", t->name);
	gn_event_log_end(d->base.log);
}

void gn_shared_get_template(void *ctx, struct gn_peer *p, const cJSON *arguments,
			    struct gn_reply *reply)
{
	struct gn_shared *d = ctx;
	struct gn_json_errors e = { .failed = false };
	char name[sizeof(d->templates->name)] = "";
	char vm[sizeof(d->vms->name)] = "";

	gn_json_get_text(&e, arguments, "template", GN_JSON_REQUIRED, name, sizeof(name));
	gn_json_get_text(&e, arguments, "name", GN_JSON_REQUIRED, vm, sizeof(vm));
	if (e.failed)
		gn_reply_fail(reply, "InvalidArgument", "%s", e.why);
	else
		check_asker(d, p, vm, reply);
	if (!reply->error_class && gn_shared_template_admits(d, name, vm, reply))
		give(d, gn_shared_template_find(d, name), vm, reply);
	if (reply->error_class)
		gn_refusals_note(&d->base.refusals, d->base.log, vm, reply->error_class);
}

/* ---- Telling --------------------------------------------------------------------------------------------------------- */

/* Of the memory, what is there: a hole is, once somebody has touched it. */
static uint64_t resident_bytes(const struct gn_shared_template *t)
{
	struct stat st;

	return fstat(t->fd, &st) ? 0 : (uint64_t)st.st_blocks * 512;
}

void gn_shared_query_templates(void *ctx, struct gn_peer *p, const cJSON *a, struct gn_reply *reply)
{
	const struct gn_shared *d = ctx;
	struct gn_json_writer *w = reply->writer;

	(void)p;
	(void)a;
	gn_json_begin_array(w, "return");
	for (const struct gn_shared_template *t = d->templates; t; t = t->next) {
		gn_json_begin_object(w, NULL);
		gn_json_put_text(w, "name", t->name);
		gn_json_put_u64(w, "bytes", (uint64_t)t->origin.bytes);
		gn_json_put_u64(w, "resident_bytes", resident_bytes(t));
		gn_json_put_u64(w, "vms", t->vm_count);
		gn_json_put_bool(w, "retired", t->is_retired);
		gn_json_end_object(w);
	}
	gn_json_end_array(w);
}

/* Of a name there may be retired ones, too. */
void gn_shared_put_templates(struct gn_shared *d)
{
	static const struct {
		const char *name, *help;
	} figures[] = {
		{ "gnomon_template_bytes", "Size of the template." },
		{ "gnomon_template_resident_bytes", "Memory of it that is there." },
		{ "gnomon_template_vms", "VMs registered over it." },
	};

	for (unsigned is_counting = 0; is_counting < 2; is_counting++)
		for (const struct gn_shared_template *t = d->templates; t; t = t->next) {
			const double values[] = { (double)t->origin.bytes,
						  (double)resident_bytes(t), t->vm_count };

			for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
				struct gn_metric *m = gn_metrics_get(
					d->base.metrics, GN_METRIC_GAUGE, figures[i].name,
					figures[i].help, "template", t->name);

				if (is_counting)
					gn_metric_add(m, values[i]);
				else
					gn_metric_set(m, 0);
			}
		}
}
