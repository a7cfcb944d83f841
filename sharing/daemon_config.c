/* SPDX-License-Identifier: MIT */
/*
 * daemon_config.c - the daemon's keys.
 */
#include "daemon_config.h"

#include <fnmatch.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define AT(field) offsetof(struct gn_shared_config, field)

static const struct gn_config_key keys[] = {
	GN_BASE_KEYS("/run/gnomon/shared.sock"),
	{ "sharing", "cpu_percent", GN_CONFIG_NUMBER, AT(cpu_percent), 0.01, 10000, NULL, "10",
	  "of one core, for the daemon and all VMs' scanning together" },
	{ "sharing", "sweep", GN_CONFIG_MS, AT(sweep_ms), 10, 3600000, NULL, "500ms",
	  "how often VMs learn which pages were written; a page is looked at after two" },
	{ "sharing", "pool", GN_CONFIG_SIZE, AT(pool_bytes), 0x1p20, 0x1p44, NULL, "4G",
	  "frames of one domain, at most" },
	{ "sharing", "index", GN_CONFIG_SIZE, AT(index_bytes), 0x1p20, 0x1p44, NULL, "32G",
	  "memory of one domain's VMs that its index has room for, at 21 bytes a page" },
	{ "sharing", "reserve", GN_CONFIG_SIZE, AT(reserve_bytes), 0, 0x1p52, NULL, "256M",
	  "of what is saved, not to be given away: guests may take it back at any moment" },
	{ "domain *", "vms", GN_CONFIG_NAMED, AT(domains), 0, 0, NULL, NULL,
	  "names, or patterns like web-*, of the VMs that may share with each other" },
	{ "domain *", "quiet", GN_CONFIG_NAMED_SWITCH, AT(quiet), 0, 0, NULL, NULL,
	  "whether their guests must learn nothing of each other by the time that accesses take" },
	{ "template *", "file", GN_CONFIG_NAMED, AT(template_files), 0, 0, NULL, NULL,
	  "a memory image (gnomon run --save-memory), read when the daemon starts or a reload "
	  "names it" },
	{ "template *", "vms", GN_CONFIG_NAMED, AT(template_vms), 0, 0, NULL, NULL,
	  "names, or patterns like web-*, of the VMs that may begin with it" },
};

const struct gn_config_schema gn_shared_schema = { keys, sizeof(keys) / sizeof(keys[0]),
						   sizeof(struct gn_shared_config) };

static bool has_match(const char *patterns, const char *name)
{
	char text[sizeof(((struct gn_config_names *)0)->of[0].text)], *rest = text;

	snprintf(text, sizeof(text), "%s", patterns);
	for (char *one; (one = strsep(&rest, " \t,"));)
		if (*one && !fnmatch(one, name, 0))
			return true;
	return false;
}

/* The text that @names has for the section @section; NULL: it has none. */
static const char *text_of(const struct gn_config_names *names, const char *section)
{
	for (unsigned i = 0; i < names->count; i++)
		if (!strcmp(names->of[i].name, section))
			return names->of[i].text;
	return NULL;
}

static bool has_named(const struct gn_config_names *names, const char *section, const char *vm)
{
	const char *patterns = text_of(names, section);

	return patterns && has_match(patterns, vm);
}

bool gn_shared_config_allows(const struct gn_shared_config *c, const char *domain, const char *name)
{
	return has_named(&c->domains, domain, name);
}

bool gn_shared_config_has_template(const struct gn_shared_config *c, const char *name)
{
	return text_of(&c->template_files, name);
}

bool gn_shared_config_gives(const struct gn_shared_config *c, const char *name, const char *vm)
{
	return has_named(&c->template_vms, name, vm);
}

bool gn_shared_config_is_quiet(const struct gn_shared_config *c, const char *domain)
{
	for (unsigned i = 0; i < c->quiet.count; i++)
		if (!strcmp(c->quiet.of[i].name, domain))
			return c->quiet.of[i].is_on;
	return false;
}
