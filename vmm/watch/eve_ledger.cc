#include "vmm/watch/eve_ledger.h"

namespace ivmm::watch {

bool EveLedger::has_come(const Alert& alert, Way way) {
    const Key key{alert.flow_id, alert.signature_id, alert.timestamp};
    const auto step = static_cast<int>(way);
    const auto [entry, is_new] = balance_.try_emplace(key, 0);
    const bool has_come = entry->second * step < 0;
    entry->second += step;
    if (entry->second == 0) {
        balance_.erase(entry);
    }
    if (is_new) {
        oldest_.push_back(key);
        if (oldest_.size() > kMostAlerts) {
            balance_.erase(oldest_.front());
            oldest_.pop_front();
        }
    }
    return has_come;
}

}  // namespace ivmm::watch
