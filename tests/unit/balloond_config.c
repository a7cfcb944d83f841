/* SPDX-License-Identifier: MIT */
/*
 * balloond_config.c - the daemon's schema against what it stands for: the sample file, the policies and their defaults.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "balloon/daemon_config.h"
#include "support/schema_files.h"

Test(balloond_config, sample_is_the_defaults)
{
	static struct gn_daemon_config sample, least;

	schema_check_sample(&gn_daemon_schema, "/packaging/balloond.ini", "[memory]\nbudget = 8G\n",
			    &sample, &least);
}

Test(balloond_config, every_key_is_in_the_sample_and_the_page)
{
	schema_check_file(&gn_daemon_schema, "/packaging/balloond.ini");
	schema_check_file(&gn_daemon_schema, "/docs/balloond.md");
}

Test(balloond_config, policies)
{
	struct gn_policy_config ours, theirs;
	struct gn_daemon_config c;
	const struct gn_policy_ops *ops;
	char text[80], why[400];
	unsigned count = 0;

	for (; (ops = gn_policy_at(count)); count++) {
		snprintf(text, sizeof(text), "[memory]\nbudget=1G\n[policy]\nname=%s\n", ops->name);
		cr_assert_eq(gn_config_parse(&gn_daemon_schema, "f", text, &c, why, sizeof(why)), 0,
			     "%s", why);
		cr_assert_eq(c.policy, count, "%s", ops->name);
	}
	cr_assert_gt(count, 1);
	gn_daemon_config_policy(&c, &ours);
	gn_policy_config_init(&theirs);
	cr_assert_eq(ours.tau, theirs.tau);
	cr_assert_eq(ours.reserve_fraction, theirs.reserve_fraction);
	cr_assert_eq(ours.dead_band_fraction, theirs.dead_band_fraction);
	cr_assert_eq(ours.calm_shrink_per_s, theirs.calm_shrink_per_s);
	cr_assert_eq(ours.reversal_ns, theirs.reversal_ns);
	cr_assert_eq(ours.refaults_per_s, theirs.refaults_per_s);
}
