/* SPDX-License-Identifier: MIT */
/*
 * schemes.h - the schemes that ship with the engine. Register those you want, or all.
 */
#ifndef GNOMON_SCHEMES_H
#define GNOMON_SCHEMES_H

#include <gnomon/engine.h>

#ifdef __cplusplus
extern "C" {
#endif

extern const struct gn_scheme_ops gn_scheme_native;	 /* direct/ */
extern const struct gn_scheme_ops gn_scheme_interp;	 /* direct/ */
extern const struct gn_scheme_ops gn_scheme_shadow;	 /* shadow/ */
extern const struct gn_scheme_ops gn_scheme_shadow_vtlb; /* shadow/ */
extern const struct gn_scheme_ops gn_scheme_ept;	 /* ept/ */
extern const struct gn_scheme_ops gn_scheme_npt;	 /* ept/ */

/* Register every scheme above, in this order. 0 or the first error. */
static inline int gn_schemes_register_all(void)
{
	const struct gn_scheme_ops *const all[] = { &gn_scheme_native,	    &gn_scheme_shadow,
						    &gn_scheme_shadow_vtlb, &gn_scheme_ept,
						    &gn_scheme_npt,	    &gn_scheme_interp };
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		int err = gn_scheme_register(all[i]);
		if (err)
			return err;
	}
	return 0;
}

#ifdef __cplusplus
}
#endif
#endif
