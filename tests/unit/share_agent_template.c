/* SPDX-License-Identifier: MIT */
/*
 * share_agent_template.c - which agents a VM over a template may have.
 */
#include <errno.h>

#include "sharing/agent.h"
#include "support/p2m_rig.h"
#include "support/template.h"

TestSuite(share_agent_template, .fini = rig_teardown);

static int made(const char *group, const char *template_name)
{
	const struct gn_share_agent_config config = { .socket = "/nonexistent/socket",
						      .name = "v",
						      .group = group,
						      .template_name = template_name,
						      .mem_bytes = vm->config.mem_bytes,
						      .vm = vm };
	struct gn_share_agent *agent;
	int err = gn_share_agent_create(&config, &agent);

	if (!err)
		gn_share_agent_destroy(agent);
	return err;
}

Test(share_agent_template, is_of_no_group)
{
	struct gn_vm_config config = plain_config(PAGES * GN_PAGE_SIZE);

	config.pool = GN_POOL_TEMPLATE;
	config.template_fd = template_new(PAGES, TEMPLATE_SEALS);
	vm = plain_vm(&config);
	close(config.template_fd);
	cr_assert_eq(made("g", NULL), -EINVAL);
	cr_assert_eq(made("g", "t"), -EINVAL);
	cr_assert_eq(made(NULL, "t"), 0);
	cr_assert_eq(made("", NULL), 0, "one that is nobody's template");
}

Test(share_agent_template, others_are_over_none)
{
	rig_make(PAGES * GN_PAGE_SIZE, 1);
	cr_assert_eq(made(NULL, "t"), -EINVAL);
	cr_assert_eq(made(NULL, NULL), 0);
	cr_assert_eq(made("", ""), 0);
}
