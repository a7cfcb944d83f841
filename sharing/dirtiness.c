/* SPDX-License-Identifier: MIT */
/*
 * dirtiness.c - the dirty log where it is free, accessed bits where it is not.
 *
 * While the dirty log is on, leaves are 4 KiB. A VM whose frames are that small loses nothing by it, and gets an exact
 * answer. One with large frames would lose what it has them for; there a block that was not even used was not written either, and a
 * block that is used all the time should not be split anyway.
 *
 * Under a scheme where the hardware walks the guest's own tables there is neither. The answer is then that nothing is
 * known.
 */
#include "dirtiness.h"

#include <errno.h>

#include "mmu/vm.h"

int gn_dirtiness_start(struct gn_vm *vm, enum gn_dirtiness *kind)
{
	int err;

	*kind = GN_DIRTINESS_ACCESSED;
	if (vm->p2m.backing_level > 1)
		return 0;
	err = gn_dirty_start(vm);
	if (err == -EALREADY)
		return -EBUSY;
	*kind = err == -EOPNOTSUPP ? GN_DIRTINESS_UNKNOWN : GN_DIRTINESS_LOG;
	return err == -EOPNOTSUPP ? 0 : err;
}

void gn_dirtiness_stop(struct gn_vm *vm, enum gn_dirtiness kind)
{
	if (kind == GN_DIRTINESS_LOG)
		gn_dirty_stop(vm);
}

int gn_dirtiness_harvest(struct gn_vm *vm, enum gn_dirtiness kind, gfn_t start, uint64_t count,
			 uint8_t *bitmap, bool *is_known)
{
	int err = 0;

	*is_known = kind != GN_DIRTINESS_UNKNOWN;
	if (kind == GN_DIRTINESS_UNKNOWN)
		return 0;
	if (kind == GN_DIRTINESS_ACCESSED) {
		err = gn_accessed_harvest(vm, start, count, bitmap);
		*is_known = !err;
		return err == -EOPNOTSUPP ? 0 : err;
	}
	err = gn_dirty_harvest(vm, start, count, bitmap);
	*is_known = !err;
	if (err == -EINVAL && !gn_dirty_is_logged(vm))
		err = gn_dirty_start(vm);
	return err == -EALREADY ? 0 : err;
}
