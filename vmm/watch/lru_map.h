#pragma once

#include <list>
#include <map>
#include <utility>

namespace ivmm::watch {

/// A map that forgets what has not been used for the longest time when it is full.
template <class Key, class Value>
class LruMap {
 public:
    explicit LruMap(size_t most) : most_(most) {}

    /// The key's value; a new one if it is not there.
    Value& at(const Key& key) {
        const auto found = places_.find(key);
        if (found != places_.end()) {
            entries_.splice(entries_.begin(), entries_, found->second);
            return found->second->second;
        }
        if (places_.size() == most_) {
            places_.erase(entries_.back().first);
            entries_.pop_back();
        }
        entries_.emplace_front(key, Value{});
        places_[key] = entries_.begin();
        return entries_.front().second;
    }
    size_t size() const { return places_.size(); }

 private:
    using Entries = std::list<std::pair<Key, Value>>;
    const size_t most_;
    Entries entries_;  // the last one used first
    std::map<Key, typename Entries::iterator> places_;
};

}  // namespace ivmm::watch
