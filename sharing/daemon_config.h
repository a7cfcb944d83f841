/* SPDX-License-Identifier: MIT */
/*
 * daemon_config.h - what gnomon-shared can be told. docs/shared.md explains the keys.
 */
#ifndef GN_SHARING_DAEMON_CONFIG_H
#define GN_SHARING_DAEMON_CONFIG_H

#include "control/base.h"

#ifdef __cplusplus
extern "C" {
#endif

struct gn_shared_config {
	struct gn_base_config base;
	double cpu_percent; /* of one core, all together */
	uint64_t sweep_ms;
	uint64_t pool_bytes,
		index_bytes; /* of a domain: its frames, and the memory its index has room for */
	uint64_t reserve_bytes;
	struct gn_config_names domains; /* the VMs of each, as patterns */
	struct gn_config_switches quiet;
	struct gn_config_names template_files, template_vms; /* of each template */
};

extern const struct gn_config_schema gn_shared_schema;

/* Whether [domain @domain] names the VM @name. */
bool gn_shared_config_allows(const struct gn_shared_config *config, const char *domain,
			     const char *name);
/* Whether it says that this domain is quiet. */
bool gn_shared_config_is_quiet(const struct gn_shared_config *config, const char *domain);
bool gn_shared_config_has_template(const struct gn_shared_config *config, const char *name);
/* Whether [template @name] names the VM @vm. */
bool gn_shared_config_gives(const struct gn_shared_config *config, const char *name,
			    const char *vm);

#ifdef __cplusplus
}
#endif

#endif
