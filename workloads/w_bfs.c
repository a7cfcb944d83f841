/* SPDX-License-Identifier: MIT */
/*
 * w_bfs.c - breadth-first search of a scale-free graph.
 *
 * Models Graph500 kernel 2: an R-MAT graph with a = .57, b = .19, c = .19, edge factor 8 (Graph500 has 16),
 * vertices scrambled, in compressed sparse rows, undirected. A vertex has a record of 1 KiB, as in a property
 * graph, which spreads the random references over pages as a far larger graph would. The result is checked
 * by Graph500's rules: each tree edge spans one level, each edge joins levels that differ by at most one, and
 * every neighbour of a reached vertex is reached.
 */
#include "list.h"
#include "region.h"
#include "rng.h"

#define EDGE_FACTOR  8
#define RECORD_BYTES ((uint64_t)1024)
#define COMPUTE_EDGE 8
/* Quadrants, in 1/65536: a, a+b, a+b+c. */
#define RMAT_A	 37356
#define RMAT_AB	 49807
#define RMAT_ABC 62259
/* Words of a vertex record. */
#define DEGREE 0
#define FIRST  8
#define CURSOR 16
#define PARENT 24 /* vertex + 1; 0: not reached */
#define LEVEL  32

struct graph {
	uint64_t vertices, edges, seed;
	unsigned scale;
	uint64_t records, adjacency, queue;
};

static uint64_t record(const struct graph *g, uint64_t v)
{
	return g->records + v * RECORD_BYTES;
}

static uint64_t get(const struct graph *g, uint64_t v, unsigned word)
{
	return cpu_load64(record(g, v) + word);
}

static void set(const struct graph *g, uint64_t v, unsigned word, uint64_t value)
{
	cpu_store64(record(g, v) + word, value);
}

static void edge_at(const struct graph *g, uint64_t i, uint64_t end[2])
{
	struct rng rng = rng_seeded(g->seed ^ mix64(i));
	uint64_t u = 0, v = 0;

	for (unsigned bit = 0; bit < g->scale; bit++) {
		unsigned x = rng_next(&rng) & 0xffff;

		u = u << 1 | (x >= RMAT_AB);
		v = v << 1 | ((x >= RMAT_A && x < RMAT_AB) || x >= RMAT_ABC);
	}
	end[0] = permute(u, g->scale, g->seed);
	end[1] = permute(v, g->scale, g->seed);
}

static void build(struct graph *g)
{
	uint64_t end[2], first = 0;

	for (uint64_t i = 0; i < g->edges; i++) {
		edge_at(g, i, end);
		for (unsigned s = 0; s < 2; s++)
			set(g, end[s], DEGREE, get(g, end[s], DEGREE) + 1);
	}
	for (uint64_t v = 0; v < g->vertices; v++) {
		set(g, v, FIRST, first);
		set(g, v, CURSOR, first);
		first += get(g, v, DEGREE);
	}
	for (uint64_t i = 0; i < g->edges; i++) {
		edge_at(g, i, end);
		for (unsigned s = 0; s < 2; s++) {
			uint64_t cursor = get(g, end[s], CURSOR);

			cpu_store32(g->adjacency + cursor * 4, (uint32_t)end[!s]);
			set(g, end[s], CURSOR, cursor + 1);
		}
	}
}

/* The vertices reached, in queue order. */
static uint64_t search(const struct graph *g, uint64_t root)
{
	uint64_t head = 0, tail = 1;

	cpu_store32(g->queue, (uint32_t)root);
	set(g, root, PARENT, root + 1);
	while (head < tail) {
		uint64_t u = cpu_load32(g->queue + head * 4), level = get(g, u, LEVEL);
		uint64_t first = get(g, u, FIRST), degree = get(g, u, DEGREE);

		for (uint64_t i = first; i < first + degree; i++) {
			uint64_t v = cpu_load32(g->adjacency + i * 4);

			cpu_compute(COMPUTE_EDGE);
			if (get(g, v, PARENT))
				continue;
			set(g, v, PARENT, u + 1);
			set(g, v, LEVEL, level + 1);
			cpu_store32(g->queue + tail++ * 4, (uint32_t)v);
		}
		region_progress(head++, g->vertices);
	}
	return tail;
}

static int check_vertex(const struct graph *g, uint64_t v, uint64_t root, bool edges,
			const char **why)
{
	uint64_t parent = get(g, v, PARENT), level = get(g, v, LEVEL);

	if (!parent)
		return workload_fail(why, "bfs: a queued vertex was not marked as reached");
	if (v != root && get(g, parent - 1, LEVEL) + 1 != level)
		return workload_fail(why, "bfs: a tree edge does not span one level");
	for (uint64_t i = get(g, v, FIRST), n = edges ? get(g, v, DEGREE) : 0; n; i++, n--) {
		uint64_t other = cpu_load32(g->adjacency + i * 4), there;

		if (other >= g->vertices || !get(g, other, PARENT))
			return workload_fail(why,
					     "bfs: a neighbour of a reached vertex is not reached");
		there = get(g, other, LEVEL);
		if (there + 1 < level || there > level + 1)
			return workload_fail(why,
					     "bfs: an edge joins levels that are not neighbours");
	}
	return 0;
}

static int run(const struct workload_params *params, const char **why)
{
	struct graph g = { .scale = floor_log2(params->size), .seed = params->seed };
	uint64_t root = 0, reached;

	if (g.scale < 4)
		g.scale = 4;
	g.vertices = (uint64_t)1 << g.scale;
	g.edges = g.vertices * EDGE_FACTOR;
	g.records = region_map(params, g.vertices * RECORD_BYTES);
	g.adjacency = region_map(params, g.edges * 2 * 4);
	g.queue = region_map(params, g.vertices * 4);
	build(&g);
	while (!get(&g, root, DEGREE))
		root++;
	cpu_measure();
	reached = search(&g, root);
	for (uint64_t i = 0; i < reached; i++)
		if (check_vertex(&g, cpu_load32(g.queue + i * 4), root, i % 8 == 0, why))
			return -1;
	return 0;
}

const struct workload workload_bfs = {
	.name = "bfs",
	.kind = WORKLOAD_MEMORY,
	.models = "breadth-first search of an R-MAT graph (Graph500)",
	.size_unit = "vertices",
	.size_default = 32768,
	.size_quick = 1024,
	.run = run,
};
