/* SPDX-License-Identifier: MIT */
/*
 * control_metrics.c - metrics as Prometheus reads them, from the port and from the file; the event log; the service
 * loop as systemd sees it.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "control/clock.h"
#include "control/event_log.h"
#include "control/metrics.h"
#include "control/metrics_http.h"
#include "control/service.h"

static void fill(struct gn_metrics *m)
{
	gn_metric_add(gn_metrics_get(m, GN_METRIC_COUNTER, "rounds_total",
				     "Rounds \\ of\nthe policy.", NULL, NULL),
		      2);
	gn_metric_set(
		gn_metrics_get(m, GN_METRIC_GAUGE, "target_bytes", "Target.", "vm", "a\"b\\c\nd"),
		1048576);
	gn_metric_set(gn_metrics_get(m, GN_METRIC_GAUGE, "target_bytes", "Target.", "vm", "two"),
		      0.5);
	gn_metric_add(gn_metrics_get(m, GN_METRIC_COUNTER, "rounds_total", "", NULL, NULL), 1);
}

static const char filled[] = "# HELP rounds_total Rounds \\\\ of\\nthe policy.\n"
			     "# TYPE rounds_total counter\n"
			     "rounds_total 3\n"
			     "# HELP target_bytes Target.\n"
			     "# TYPE target_bytes gauge\n"
			     "target_bytes{vm=\"two\"} 0.5\n"
			     "target_bytes{vm=\"a\\\"b\\\\c\\nd\"} 1048576\n";

static char *format(struct gn_metrics *m)
{
	char *text;
	size_t bytes;

	cr_assert_eq(gn_metrics_format(m, &text, &bytes), 0);
	cr_assert_eq(bytes, strlen(text));
	return text;
}

Test(control_metrics, text)
{
	struct gn_metrics *m;
	char *text;

	cr_assert_eq(gn_metrics_create(&m), 0);
	fill(m);
	text = format(m);
	cr_assert_str_eq(text, filled);
	free(text);
	cr_assert_null(gn_metrics_get(m, GN_METRIC_GAUGE, "rounds_total", "", NULL, NULL), "kind");
	cr_assert_null(gn_metrics_get(m, GN_METRIC_GAUGE, "target_bytes", "", "host", "x"),
		       "label");
	cr_assert_null(gn_metrics_get(m, GN_METRIC_GAUGE, "2x", "", NULL, NULL), "name");
	cr_assert_null(gn_metrics_get(m, GN_METRIC_GAUGE, "x-y", "", NULL, NULL), "name");
	gn_metric_set(NULL, 1);
	gn_metrics_forget(m, "vm", "two");
	gn_metrics_forget(m, "vm", "three");
	gn_metric_set(gn_metrics_get(m, GN_METRIC_GAUGE, "x", "", NULL, NULL), INFINITY);
	text = format(m);
	cr_assert_null(strstr(text, "two"));
	cr_assert_not_null(strstr(text, "1048576\n"));
	cr_assert_not_null(strstr(text, "x +Inf\n"));
	free(text);
	gn_metrics_forget(m, "vm", "a\"b\\c\nd");
	text = format(m);
	cr_assert_null(strstr(text, "target"), "a family without values is not mentioned");
	free(text);
	gn_metrics_destroy(m);
}

Test(control_metrics, file)
{
	char directory[] = "/tmp/gn_metrics_XXXXXX", path[64], text[1024];
	struct gn_metrics *m;
	ssize_t got;
	int fd;

	cr_assert_not_null(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/gnomon.prom", directory);
	cr_assert_eq(gn_metrics_create(&m), 0);
	fill(m);
	cr_assert_eq(gn_metrics_write_file(m, path), 0);
	cr_assert_eq(gn_metrics_write_file(m, path), 0);
	fd = open(path, O_RDONLY);
	got = read(fd, text, sizeof(text) - 1);
	cr_assert_gt(got, 0);
	text[got] = '\0';
	cr_assert_str_eq(text, filled);
	close(fd);
	unlink(path);
	cr_assert_eq(rmdir(directory), 0, "nothing else is left there");
	cr_assert_eq(gn_metrics_write_file(m, path), -ENOENT);
	gn_metrics_destroy(m);
}

static void before(void *ctx)
{
	gn_metric_add(ctx, 1);
}

/* One request, byte stream in and out, with the loop turned in between. */
static void ask(sd_event *event, uint16_t port, const char *request, char *out, size_t bytes)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_port = htons(port),
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	uint64_t end = gn_now_ns() + 5000000000u;
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	size_t have = 0;
	ssize_t got;

	cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	cr_assert_eq(send(fd, request, strlen(request), MSG_NOSIGNAL), (ssize_t)strlen(request));
	fcntl(fd, F_SETFL, O_NONBLOCK);
	do {
		cr_assert_geq(sd_event_run(event, 2000), 0);
		got = recv(fd, out + have, bytes - 1 - have, 0);
		if (got > 0)
			have += (size_t)got;
		cr_assert_lt(gn_now_ns(), end, "no end of the answer to %s", request);
	} while (got > 0 || (got < 0 && errno == EAGAIN));
	out[have] = '\0';
	close(fd);
}

Test(control_metrics, http)
{
	static const struct {
		const char *request, *status;
	} cases[] = {
		{ "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 404" },
		{ "GET /metrics/../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		  "HTTP/1.1 404" },
		{ "POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: "
		  "3\r\n\r\nabc",
		  "HTTP/1.1 405" },
		{ "nonsense\r\n\r\n", "" },
	};
	struct gn_metrics_http *h, *second;
	struct gn_metrics *m;
	sd_event *event;
	char out[8192];

	cr_assert_geq(sd_event_new(&event), 0);
	cr_assert_eq(gn_metrics_create(&m), 0);
	fill(m);
	cr_assert_eq(gn_metrics_http_create(
			     event, m, 0, before,
			     gn_metrics_get(m, GN_METRIC_COUNTER, "rounds_total", "", NULL, NULL),
			     &h),
		     0);
	ask(event, gn_metrics_http_port(h),
	    "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", out, sizeof(out));
	cr_assert(!strncmp(out, "HTTP/1.1 200", 12), "%s", out);
	cr_assert_not_null(strstr(out, "text/plain; version=0.0.4"));
	cr_assert_not_null(strstr(out, "\nrounds_total 4\n"), "%s", out);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		ask(event, gn_metrics_http_port(h), cases[i].request, out, sizeof(out));
		cr_assert(!strncmp(out, cases[i].status, strlen(cases[i].status)), "%s: %s",
			  cases[i].request, out);
		cr_assert_null(strstr(out, "rounds_total"), "%s", cases[i].request);
	}
	cr_assert_eq(gn_metrics_http_create(event, m, gn_metrics_http_port(h), NULL, NULL, &second),
		     -EADDRINUSE);
	gn_metrics_http_destroy(h);
	gn_metrics_destroy(m);
	sd_event_unref(event);
}

static char *slurp(const char *path, char *out, size_t bytes)
{
	int fd = open(path, O_RDONLY);
	ssize_t got = read(fd, out, bytes - 1);

	out[got > 0 ? got : 0] = '\0';
	close(fd);
	return out;
}

Test(control_metrics, event_log)
{
	char directory[] = "/tmp/gn_log_XXXXXX", path[64], moved[64], text[1024];
	struct gn_event_log *log;
	const char *why;
	cJSON *line;

	cr_assert_not_null(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/log", directory);
	snprintf(moved, sizeof(moved), "%s/log.1", directory);
	cr_assert_eq(gn_event_log_open(path, &log), 0);
	gn_json_put_text(gn_event_log_begin(log, "vm-gone"), "vm", "a\nb");
	gn_event_log_end(log);
	cr_assert_eq(rename(path, moved), 0);
	gn_json_put_u64(gn_event_log_begin(log, "second"), "n", 2);
	gn_event_log_end(log);
	cr_assert_eq(gn_event_log_reopen(log, path), 0);
	gn_event_log_begin(log, "third");
	gn_event_log_end(log);
	cr_assert_eq(gn_event_log_reopen(log, "/nonexistent/log"), -ENOENT);
	gn_event_log_begin(log, "fourth");
	gn_event_log_end(log);
	slurp(moved, text, sizeof(text));
	cr_assert_not_null(strstr(text, "second"));
	cr_assert_eq(gn_json_parse(text, strcspn(text, "\n"), &line, &why), 0, "%s", text);
	cr_assert_str_eq(cJSON_GetStringValue(cJSON_GetObjectItem(line, "vm")), "a\nb");
	cr_assert_eq(strlen(cJSON_GetStringValue(cJSON_GetObjectItem(line, "time"))), 27);
	cJSON_Delete(line);
	slurp(path, text, sizeof(text));
	cr_assert_null(strstr(text, "second"));
	cr_assert_not_null(strstr(text, "third"));
	cr_assert_not_null(strstr(text, "fourth"));
	cr_assert_eq(gn_event_log_lost(log), 0);
	cr_assert_eq(gn_event_log_reopen(log, "/dev/full"), 0);
	gn_event_log_begin(log, "fifth");
	gn_event_log_end(log);
	cr_assert_eq(gn_event_log_lost(log), 1);
	gn_event_log_close(log);
	unlink(path);
	unlink(moved);
	rmdir(directory);
	cr_assert_eq(gn_event_log_open(path, &log), -ENOENT);
	cr_assert_eq(gn_event_log_open("", &log), 0);
	gn_event_log_begin(log, "nowhere");
	gn_event_log_end(log);
	cr_assert_eq(gn_event_log_lost(log), 0);
	gn_event_log_close(log);
}

static unsigned reloads;
static int notify_fd;
static char notified[4096];

/* The queue of a datagram socket is short, and who notifies waits for room. */
static void drain(void)
{
	char one[256];
	ssize_t got;

	while ((got = recv(notify_fd, one, sizeof(one) - 1, MSG_DONTWAIT)) > 0) {
		one[got] = '\0';
		snprintf(notified + strlen(notified), sizeof(notified) - strlen(notified), "%s|",
			 one);
	}
}

static void on_reload(void *ctx)
{
	(void)ctx;
	drain();
	reloads++;
	kill(getpid(), SIGTERM);
}

static struct gn_service *service;

static void on_stop(void *ctx)
{
	(void)ctx;
	gn_service_exit(service, 7);
}

Test(control_metrics, service, .timeout = 20)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct gn_service_config config = { .reload = on_reload, .stop = on_stop };
	char directory[] = "/tmp/gn_service_XXXXXX", pid[24], *all = notified;
	int fd = notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);

	cr_assert_not_null(mkdtemp(directory));
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/notify", directory);
	cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	setenv("NOTIFY_SOCKET", address.sun_path, 1);
	setenv("WATCHDOG_USEC", "200000", 1);
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	setenv("WATCHDOG_PID", pid, 1);
	cr_assert_eq(gn_service_create(&config, &service), 0);
	gn_service_ready(service);
	gn_service_status(service, "%d VMs", 3);
	for (unsigned i = 0; i < 30; i++) {
		cr_assert_geq(sd_event_run(gn_service_event(service), 10000), 0);
		drain();
	}
	kill(getpid(), SIGHUP);
	cr_assert_eq(gn_service_run(service), 7);
	gn_service_destroy(service);
	drain();
	cr_assert(!strncmp(all, "READY=1|", 8) || strstr(all, "|READY=1|STATUS=3 VMs|"), "%s", all);
	cr_assert_not_null(strstr(all, "STATUS=3 VMs|"), "%s", all);
	cr_assert_not_null(strstr(all, "WATCHDOG=1|"), "%s", all);
	cr_assert_not_null(strstr(all, "RELOADING=1\nMONOTONIC_USEC="), "%s", all);
	cr_assert_not_null(strstr(strstr(all, "RELOADING"), "|READY=1|STOPPING=1|"), "%s", all);
	cr_assert_eq(reloads, 1);
	close(fd);
	unlink(address.sun_path);
	rmdir(directory);
}
