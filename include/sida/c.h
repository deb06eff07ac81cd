#ifndef SIDA_C_H
#define SIDA_C_H

/**
 * sida's expert store for C99 and for whatever calls C: experts come from a callback, stay in host memory under a
 * budget, and are lent in waves. The layer, the routers and the predictors are C++ only.
 *
 * Errors. A function that can fail returns a sida_code; SIDA_OK is 0. Its last parameter, `why`, is the caller's
 * own buffer for the message, or NULL. Nothing is kept between calls and nothing needs to be freed. On failure,
 * what a function would have given through a pointer is set to NULL or 0.
 * Exceptions never cross this interface. No function prints, ends the process or reads the environment.
 *
 * Threads. All functions may be called from several threads at once, on one store too; a wave or an event belongs to
 * one thread at a time. A store must not be used by a call that begins during or after sida_store_close.
 *
 * Versions. A struct that the caller fills begins with `struct_size`, to be set to its sizeof; what is zero takes its
 * default. A newer sida reads an older caller's struct; an older sida refuses a newer caller's members unless they
 * are zero (SIDA_UNSUPPORTED).
 */

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define SIDA_C_API
#else
#define SIDA_C_API __attribute__((visibility("default")))
#endif

/** Number of this interface. It changes when a program that was built against the old one would break. */
#define SIDA_ABI_VERSION 1

#ifdef __cplusplus
extern "C" {
#endif

/** The library's version, such as "0.1.0". Constant, never NULL. */
SIDA_C_API char const* sida_version(void);
/** The SIDA_ABI_VERSION that the library was built with; a program that loads it compares the two. */
SIDA_C_API uint32_t sida_abi_version(void);

/** What went wrong; one of the enumerators below, or a later version's. */
typedef int32_t sida_code;
enum {
  SIDA_OK = 0,
  SIDA_INVALID_ARGUMENT = 1, /**< NULL, a size, an id or an option that the callee does not accept */
  SIDA_NOT_FOUND = 2,        /**< from a callback: a file or key that isn't there */
  SIDA_IO = 3,               /**< a read failed */
  SIDA_CORRUPT = 4,          /**< from a callback: bytes that contradict their format */
  SIDA_UNSUPPORTED = 5,      /**< well-formed, but not something that this version can do */
  SIDA_OUT_OF_MEMORY = 6,    /**< an allocation failed */
  SIDA_OVER_BUDGET = 7,      /**< the budget cannot hold what was asked for */
  SIDA_WOULD_DEADLOCK = 8,   /**< a second blocking acquire by a thread that holds a wave */
  SIDA_CANCELLED = 9,        /**< sida_store_cancel was called */
  SIDA_DEVICE = 10,          /**< an error of a GPU runtime */
  SIDA_INTERNAL = 11         /**< an exception that nobody expected; a defect of sida, or a failing allocator of C++ */
};

/** The code's name, such as "over_budget"; "unknown" for a number that is none. Constant, never NULL. */
SIDA_C_API char const* sida_code_name(sida_code code);

/** A buffer that the caller lends for a message. Always zero-terminated, cut where it doesn't fit, and empty after
 * success. Nothing is written when `text` is NULL or `capacity_bytes` is 0. 256 bytes hold most messages. */
typedef struct sida_message {
  char* text;
  size_t capacity_bytes;
} sida_message;

/** Names one expert. `layer` counts the MoE layers of the model from 0, not its blocks. */
typedef struct sida_expert_id {
  uint32_t layer;
  uint32_t expert;
} sida_expert_id;

/**
 * Reads one expert's record to the start of `dst` and blocks meanwhile. `dst` is aligned to 4 KiB and has
 * `capacity_bytes` bytes: the record's, rounded up to 4 KiB or more; what stands after the record is unspecified.
 * Called from the store's I/O threads, several at once. It must not call the store.
 * @return SIDA_OK, or the reason; any other value counts as SIDA_IO. `why` (never NULL) takes a message, which reaches
 * the caller of the acquire. An exception is answered like SIDA_IO, but let none pass through frames of C.
 */
typedef sida_code (*sida_read_function)(void* context, sida_expert_id expert, void* dst, size_t capacity_bytes,
                                        sida_message* why);

/** Where experts come from. Copied by sida_store_open, arrays included. */
typedef struct sida_source {
  uint32_t struct_size;              /**< sizeof(sida_source) */
  uint32_t layers;                   /**< MoE layers; at least 1 */
  uint32_t const* experts_per_layer; /**< [layers] */
  uint64_t const* record_bytes;      /**< [layers]: bytes of each expert's record; above 0 where a layer has experts */
  sida_read_function read;
  void* context; /**< given to `read`; must live until the store is closed */
} sida_source;

/** Which resident expert leaves when another needs its slot. */
typedef int32_t sida_policy;
enum {
  SIDA_POLICY_DEFAULT = 0, /**< SIDA_POLICY_LFRU */
  SIDA_POLICY_FIFO = 1,
  SIDA_POLICY_LRU = 2,
  SIDA_POLICY_LFU = 3,
  SIDA_POLICY_LFRU = 4,
  SIDA_POLICY_NEXT_USE = 5 /**< Belady's rule over the submitted plans */
};

/** The caller's allocator for the slots: asked once per store, by sida_store_open. `alignment` is a power of two.
 * NULL: there is no such room. */
typedef void* (*sida_allocate_function)(void* context, size_t bytes, size_t alignment);
/** Takes back what sida_allocate_function gave for the same size and alignment. */
typedef void (*sida_deallocate_function)(void* context, void* data, size_t bytes, size_t alignment);

typedef struct sida_store_options {
  uint32_t struct_size;                /**< sizeof(sida_store_options) */
  uint32_t io_threads;                 /**< threads that call `read`; 0: 4 */
  uint64_t budget_bytes;               /**< hard ceiling in slot bytes for all that is resident or on its way */
  sida_policy policy;                  /**< SIDA_POLICY_... */
  uint32_t prefetch_depth;             /**< prefetches under way at once; 0: 4 */
  sida_allocate_function allocate;     /**< both NULL: sida takes memory from the system */
  sida_deallocate_function deallocate; /**< given together with `allocate` */
  void* memory_context;                /**< given to both; must live until the store is closed */
} sida_store_options;

/** A cache of slots for experts, each of the size of the largest record rounded up to 4 KiB. */
typedef struct sida_store sida_store;
/** One demand event under way: all experts that one layer step needs. */
typedef struct sida_event sida_event;
/** Experts of an event that are resident and pinned: until the wave is released, their bytes neither move nor leave. */
typedef struct sida_wave sida_wave;

/**
 * Opens a store. `*store` is to be given to sida_store_close.
 * @return SIDA_OVER_BUDGET when the budget holds not one expert of the largest layer; SIDA_INVALID_ARGUMENT (NULL,
 * sizes, a source without experts, an unknown policy, one allocator function without the other); SIDA_OUT_OF_MEMORY;
 * SIDA_UNSUPPORTED (a newer caller's struct).
 */
SIDA_C_API sida_code sida_store_open(sida_source const* source, sida_store_options const* options, sida_store** store,
                                     sida_message* why);
/**
 * Waits for reads under way, and frees the store. NULL is fine.
 * @return SIDA_INVALID_ARGUMENT, and the store stays open, while a wave, an event or another thread's call uses it.
 */
SIDA_C_API sida_code sida_store_close(sida_store* store, sida_message* why);

/** How many experts the budget holds at once; 0 for NULL. */
SIDA_C_API uint32_t sida_store_slots(sida_store const* store);
/** Bytes of one slot; 0 for NULL. */
SIDA_C_API uint64_t sida_store_slot_bytes(sida_store const* store);

/** The experts of one planned event: any order, repetitions allowed. */
typedef struct sida_expert_set {
  sida_expert_id const* experts; /**< [count]; may be NULL when `count` is 0 */
  size_t count;
} sida_expert_set;

/** Names a submitted plan. */
typedef uint64_t sida_plan;
#define SIDA_NO_PLAN UINT64_C(0)

/**
 * Announces future events of one batch, in the order of use: `events[i]` is what event i will probably demand. The
 * store loads them ahead and keeps what is needed soonest. A hint: a wrong plan costs time, never correctness.
 * `plan` may be NULL. @return SIDA_INVALID_ARGUMENT for an unknown expert.
 */
SIDA_C_API sida_code sida_plan_submit(sida_store* store, sida_expert_set const* events, size_t count, sida_plan* plan,
                                      sida_message* why);
/** Forgets what is left of a plan; one that is over, or none, is fine. @return SIDA_INVALID_ARGUMENT for NULL. */
SIDA_C_API sida_code sida_plan_drop(sida_store* store, sida_plan plan);

/** Where an event stands in a submitted plan: event `event` of `plan`. */
typedef struct sida_plan_position {
  sida_plan plan;
  uint32_t event;
} sida_plan_position;

/**
 * Leases `experts` [count] (distinct, at most sida_store_slots) as one wave, all or nothing: blocks until their bytes
 * are there. `position` may be NULL: not planned. `*wave` is to be given to sida_wave_release.
 * @return SIDA_OVER_BUDGET (more experts than slots), SIDA_INVALID_ARGUMENT (unknown or repeated expert, NULL),
 * SIDA_WOULD_DEADLOCK (this thread holds a wave of this store), SIDA_CANCELLED, and what the source returned; a later
 * call may succeed then.
 */
SIDA_C_API sida_code sida_wave_acquire(sida_store* store, sida_expert_id const* experts, size_t count,
                                       sida_plan_position const* position, sida_wave** wave, sida_message* why);
/** Experts in the wave; 0 for NULL. They ascend by layer and expert. */
SIDA_C_API size_t sida_wave_size(sida_wave const* wave);
/** Expert `index` of the wave; both numbers are UINT32_MAX when there is none. */
SIDA_C_API sida_expert_id sida_wave_expert(sida_wave const* wave, size_t index);
/** Its record, aligned to 4 KiB, in host memory; NULL when there is none. Valid until the wave is released. */
SIDA_C_API void const* sida_wave_data(sida_wave const* wave, size_t index);
/** Unpins the experts and frees the wave; never blocks; any thread may do it. NULL is fine. */
SIDA_C_API void sida_wave_release(sida_wave* wave);

/**
 * Begins a demand event of any number of distinct experts, to be served wave after wave by sida_event_next_wave.
 * `*event` is to be given to sida_event_end.
 * @return SIDA_INVALID_ARGUMENT (unknown or repeated expert, NULL).
 */
SIDA_C_API sida_code sida_event_begin(sida_store* store, sida_expert_id const* experts, size_t count,
                                      sida_plan_position const* position, sida_event** event, sida_message* why);
/**
 * Leases the event's next wave: as many of its experts, ascending, as the slots hold. `*wave` is NULL, with SIDA_OK,
 * when all were served. Release the wave before the next call.
 * @return as sida_wave_acquire; after a failure the call may be repeated for the same wave.
 */
SIDA_C_API sida_code sida_event_next_wave(sida_event* event, sida_wave** wave, sida_message* why);
/** Frees the event, served or not. Waves stay valid. NULL is fine. */
SIDA_C_API void sida_event_end(sida_event* event);

/** Every blocked and every later acquire returns SIDA_CANCELLED; waves that are out stay valid. NULL is fine. */
SIDA_C_API void sida_store_cancel(sida_store* store);
/**
 * Empties the store, forgets all plans and zeroes the statistics; waits for reads under way.
 * @return SIDA_INVALID_ARGUMENT when a wave is alive or an acquire waits.
 */
SIDA_C_API sida_code sida_store_reset(sida_store* store, sida_message* why);

/** What a store did since it was opened or reset. Bytes are slot bytes. */
typedef struct sida_stats {
  uint32_t struct_size; /**< sizeof(sida_stats); set before the call */
  uint32_t reserved;
  uint64_t events;              /**< demand events; a wave of a larger event counts as one */
  uint64_t hits;                /**< demanded experts that had a slot before their event, filled or being filled */
  uint64_t late_hits;           /**< the part of `hits` whose read was still under way */
  uint64_t misses;              /**< demanded experts whose event started their load */
  uint64_t loads;               /**< reads started, by demand and by prefetch */
  uint64_t bytes_loaded;        /**< loads times slot bytes */
  uint64_t failed_loads;        /**< reads that failed */
  uint64_t evictions;           /**< experts that left */
  uint64_t prefetches;          /**< the part of `loads` that a plan started */
  uint64_t prefetches_used;     /**< demanded before they were evicted */
  uint64_t prefetches_wasted;   /**< evicted, or failed, before any demand */
  uint64_t planned_events;      /**< events that a plan had announced */
  uint64_t mispredicted_loads;  /**< misses of planned events whose plan did not name the expert */
  uint64_t stall_ns;            /**< nanoseconds that acquires waited, summed over threads */
  uint64_t peak_resident_bytes; /**< most slot bytes resident or on their way */
} sida_stats;

/** Fills as many members of `*stats` as its `struct_size` has room for; those that a newer caller knows and this
 * version doesn't become 0. @return SIDA_INVALID_ARGUMENT for NULL, or a size without room for a counter. */
SIDA_C_API sida_code sida_store_stats(sida_store const* store, sida_stats* stats, sida_message* why);

#ifdef __cplusplus
}
#endif

#endif
