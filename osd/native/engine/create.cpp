// SPDX-License-Identifier: GPL-2.0-or-later
// The engine over the real store. Apart, so that tests with a store of their own need not link it.
#include "engine/engine.hpp"

namespace vitastor::engine {

std::unique_ptr<Engine> create_engine(runtime::Loop& loop, EventSink& sink) {
    StoreFactory real = [](void*, runtime::Loop& store_loop, const store::StoreOptions& options, Logger& logger) {
        return store::create_store(store_loop, options, logger);
    };
    return create_engine(loop, sink, real, nullptr);
}

}  // namespace vitastor::engine
