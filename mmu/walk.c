/* SPDX-License-Identifier: MIT */
/*
 * walk.c - one named walk per format.
 *
 * The descriptors are copied into this file as `static const`, because a compiler folds only what it can
 * see; the objects of fmt_*.c stay the ones that everybody else points at. Written out one by one and
 * not by a macro, so that a search for gn_walk_ept_4 ends here.
 */
#include "walk.h"

#include "fmt_ept.h"
#include "fmt_fake.h"
#include "fmt_npt.h"
#include "fmt_x86.h"
#include "walk_body.h"

static const struct gn_fmt x86_4 = GN_FMT_X86_4_INIT;
static const struct gn_fmt x86_5 = GN_FMT_X86_5_INIT;
static const struct gn_fmt ept_4 = GN_FMT_EPT_4_INIT;
static const struct gn_fmt ept_5 = GN_FMT_EPT_5_INIT;
static const struct gn_fmt npt_4 = GN_FMT_NPT_4_INIT;
static const struct gn_fmt npt_5 = GN_FMT_NPT_5_INIT;
static const struct gn_fmt fake = GN_FMT_FAKE_INIT;

void gn_walk_x86_4(const struct gn_frames *frames, hpa_t root, uint64_t address,
		   struct gn_walk *out)
{
	gn_walk_body(&x86_4, frames, root, address, out);
}

void gn_walk_x86_5(const struct gn_frames *frames, hpa_t root, uint64_t address,
		   struct gn_walk *out)
{
	gn_walk_body(&x86_5, frames, root, address, out);
}

void gn_walk_ept_4(const struct gn_frames *frames, hpa_t root, uint64_t address,
		   struct gn_walk *out)
{
	gn_walk_body(&ept_4, frames, root, address, out);
}

void gn_walk_ept_5(const struct gn_frames *frames, hpa_t root, uint64_t address,
		   struct gn_walk *out)
{
	gn_walk_body(&ept_5, frames, root, address, out);
}

void gn_walk_npt_4(const struct gn_frames *frames, hpa_t root, uint64_t address,
		   struct gn_walk *out)
{
	gn_walk_body(&npt_4, frames, root, address, out);
}

void gn_walk_npt_5(const struct gn_frames *frames, hpa_t root, uint64_t address,
		   struct gn_walk *out)
{
	gn_walk_body(&npt_5, frames, root, address, out);
}

void gn_walk_fake(const struct gn_frames *frames, hpa_t root, uint64_t address, struct gn_walk *out)
{
	gn_walk_body(&fake, frames, root, address, out);
}

void gn_walk_any(const struct gn_fmt *fmt, const struct gn_frames *frames, hpa_t root,
		 uint64_t address, struct gn_walk *out)
{
	gn_walk_body(fmt, frames, root, address, out);
}
