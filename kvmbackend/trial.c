/* SPDX-License-Identifier: MIT */
#include "trial.h"

void gn_kvm_trial(struct gn_kvm_host *host)
{
	(void)host;
}
