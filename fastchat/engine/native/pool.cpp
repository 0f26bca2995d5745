// The pool under C names, so that Python can hold one.
#include "pool.h"

extern "C" {

fastchat::Pool* fastchat_pool_new(int threads) { return new fastchat::Pool(threads); }

void fastchat_pool_free(fastchat::Pool* pool) { delete pool; }

int fastchat_pool_threads(const fastchat::Pool* pool) { return pool->threads(); }
}
