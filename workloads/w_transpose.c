/* SPDX-License-Identifier: MIT */
/*
 * w_transpose.c - matrix transpose, the plain way.
 *
 * Models out-of-place transposes and the column sweeps of dense linear algebra without blocking: B[j][i] =
 * A[i][j] with B written in order and A read down its columns. A row of A takes 4 KiB and a line, so a column
 * touches each row's page once: more pages than any TLB holds, in a cycle, the worst case of LRU.
 */
#include "list.h"
#include "region.h"
#include "rng.h"

#define COLUMNS	     256
#define PITCH_BYTES  (K_PAGE + 64)
#define COMPUTE_STEP 4

struct matrices {
	uint64_t a, b, rows, seed;
};

static uint64_t value_of(const struct matrices *m, uint64_t i, uint64_t j)
{
	return mix64(m->seed + i * COLUMNS + j);
}

static void fill(const struct matrices *m)
{
	for (uint64_t i = 0; i < m->rows; i++)
		for (uint64_t j = 0; j < COLUMNS; j++)
			cpu_store64(m->a + i * PITCH_BYTES + j * 8, value_of(m, i, j));
}

static void transpose(const struct matrices *m)
{
	for (uint64_t j = 0; j < COLUMNS; j++) {
		for (uint64_t i = 0; i < m->rows; i++) {
			uint64_t x = cpu_load64(m->a + i * PITCH_BYTES + j * 8);

			cpu_store64(m->b + (j * m->rows + i) * 8, x);
			cpu_compute(COMPUTE_STEP);
		}
		kernel_tick(j, COLUMNS);
	}
}

static int run(const struct workload_params *params, const char **why)
{
	struct matrices m = { .rows = params->size / PITCH_BYTES, .seed = params->seed };

	if (!m.rows)
		m.rows = 1;
	m.a = region_map(params, m.rows * PITCH_BYTES);
	m.b = region_map(params, m.rows * COLUMNS * 8);
	fill(&m);
	cpu_measure();
	transpose(&m);
	for (uint64_t k = 0; k < m.rows * COLUMNS; k += 7)
		if (cpu_load64(m.b + k * 8) != value_of(&m, k % m.rows, k / m.rows))
			return workload_fail(why, "transpose: an element is not where it belongs");
	return 0;
}

const struct workload workload_transpose = {
	.name = "transpose",
	.kind = WORKLOAD_MEMORY,
	.models = "matrix transpose without blocking (dense linear algebra)",
	.size_unit = "bytes",
	.size_default = (uint64_t)16 << 20,
	.size_quick = (uint64_t)1 << 20,
	.run = run,
};
