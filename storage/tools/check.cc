#include "storage/tools/check.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>
#include <algorithm>
#include <map>
#include <memory>
#include <set>

#include "storage/layer/census.h"
#include "storage/layer/files.h"
#include "storage/layer/record.h"
#include "storage/layer/store.h"
#include "storage/layer/store_paths.h"
#include "storage/layer/store_records.h"
#include "storage/layer/view_lock.h"
#include "storage/tools/check_layer.h"

namespace ivmm::storage {
namespace {

using Severity = CheckFinding::Severity;

template <class Item>
std::string list(const Item& items) {
    return fmt::format("{}", fmt::join(items, ", "));
}

class StoreCheck {
 public:
    explicit StoreCheck(const CheckOptions& options) : options_(options) {}

    Result<CheckReport> run(const std::string& directory) {
        store_.path = directory;
        store_.root.reset(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        if (!store_.root) {
            return fail_errno("cannot open the store {}", directory);
        }
        IVMM_TRY(lock());
        IVMM_ASSIGN(const bool readable, read_store_file());
        if (!readable || !open_directories()) {
            return std::move(report_);
        }
        IVMM_TRY(check_next());
        IVMM_TRY(read_views());
        IVMM_TRY(read_layers());
        check_chains();
        open_lower();
        IVMM_TRY(check_layers());
        IVMM_TRY(check_garbage());
        options_.progress(1);
        return std::move(report_);
    }

 private:
    CheckFinding& found(Severity severity, std::string path, std::string what) {
        report_.findings.push_back({severity, std::move(path), std::move(what)});
        return report_.findings.back();
    }

    /// While it is shared, nobody collects garbage.
    Result<void> lock() {
        alone_ = ::flock(store_.root.get(), LOCK_EX | LOCK_NB) == 0;
        while (::flock(store_.root.get(), LOCK_SH) != 0) {
            if (errno != EINTR) {
                return fail_errno("cannot lock {}", store_.path);
            }
        }
        return {};
    }

    Result<bool> read_store_file() {
        const auto text = read_small_file(store_.root.get(), "STORE", kMaxRecordSize);
        if (!text && text.error().code == ENOENT) {
            return fail("{} is not an ivmm store", store_.path);
        }
        auto record = text ? decode_store_record(*text) : store_error_of(text.error());
        if (record) {
            record_ = *std::move(record);
            IVMM_TRY(check_style());
            return true;
        }
        found(Severity::kDamage, "STORE",
              record.error().message +
                  ". Which store this is, and over which lower branches, is lost: no view can be "
                  "served before the file is restored. Nothing else was looked at");
        return false;
    }

    /// Where the marks cannot be seen, block maps would seem to be unused.
    Result<void> check_style() const {
        if (record_.style != MarkStyle::kTrusted) {
            return {};
        }
        const auto usable = usable_mark_style(store_.root.get());
        if (!usable && options_.repair) {
            return annotate(usable.error(), store_.path);
        }
        if (usable && *usable != MarkStyle::kTrusted) {
            return fail_as(ErrorKind::kHost,
                           "{} has marks that only root (CAP_SYS_ADMIN) can see; run this as root",
                           store_.path);
        }
        return {};
    }
    static Result<StoreRecord> store_error_of(Errno error) {
        return fail("cannot be read: {}", error_text(error.code));
    }

    bool open_directories() {
        const std::pair<const char*, UniqueFd*> parts[] = {
            {"layers", &store_.layers}, {"views", &store_.views}, {"locks", &store_.locks}};
        bool all = true;
        for (const auto& part : parts) {
            const char* const name = part.first;
            auto opened = open_directory(store_.root.get(), name);
            if (!opened) {
                const int code = opened.error().code;
                const bool empty_will_do = part.second == &store_.locks && code == ENOENT;
                CheckFinding finding{Severity::kDamage, name,
                                     "cannot be opened: " + error_text(code)};
                if (empty_will_do && options_.repair &&
                    ::mkdirat(store_.root.get(), name, S_IRWXU) == 0) {
                    opened = open_directory(store_.root.get(), name);
                    finding.mended = opened.has_value();
                }
                finding.what += empty_will_do
                                    ? "; the store cannot be opened without it"
                                    : "; what was in it is lost. Nothing else was looked at";
                report_.findings.push_back(std::move(finding));
            }
            if (opened) {
                *part.second = *std::move(opened);
            }
            // Without locks/, nobody serves a view.
            all = all && (*part.second || part.second == &store_.locks);
        }
        return all;
    }

    /// NEXT can be made anew from the layers that are there.
    Result<void> check_next() {
        const auto own = open_directory(store_.layers.get(), ".");  // excludes those who write it
        if (!own || ::flock(own->get(), LOCK_EX) != 0) {
            return store_error(store_, "layers", {own ? errno : own.error().code});
        }
        const auto text = read_small_file(store_.layers.get(), "NEXT", kMaxRecordSize);
        if (!text && text.error().code == ENOENT) {
            return {};
        }
        const auto record = text ? decode_next_record(*text)
                                 : Result<NextRecord>(fail("{}", error_text(text.error().code)));
        if (record) {
            return {};
        }
        auto& finding = found(Severity::kDamage, "layers/NEXT",
                              record.error().message +
                                  "; no new layer can be made before the file is deleted (numbers "
                                  "go on from the highest that is there)");
        if (options_.repair) {
            if (::unlinkat(store_.layers.get(), "NEXT", 0) != 0) {
                return store_error(store_, "layers/NEXT", {errno});
            }
            finding.mended = true;
        }
        return {};
    }

    Result<void> read_views() {
        const auto read = for_each_entry(store_.views.get(),
                                         [&](const char* name, unsigned char) -> PosixResult<void> {
                                             if (name[0] != '.') {
                                                 read_view(name);
                                             }
                                             return {};
                                         });
        if (!read) {
            return store_error(store_, "views", read.error());
        }
        return {};
    }

    void read_view(const std::string& name) {
        const auto record = view_record(name);
        if (record) {
            census_.views[name] = record->top;
            const auto locked = is_view_locked(store_.locks.get(), name);
            if (store_.locks && (!locked || *locked)) {
                served_.insert(name);
            }
        } else if (record.error().code != ENOENT) {
            damaged_views_[name] = record.error().message;
        }
    }

    Result<ViewRecord> view_record(const std::string& name) const {
        const auto text = read_small_file(store_.views.get(), name.c_str(), kMaxRecordSize);
        if (!text) {
            errno = text.error().code;
            return fail_errno("cannot be read");
        }
        return decode_view_record(*text);
    }

    Result<void> read_layers() {
        const auto read = for_each_entry(store_.layers.get(),
                                         [&](const char* name, unsigned char) -> PosixResult<void> {
                                             if (const auto number = layer_number(name)) {
                                                 read_layer(*number);
                                             }
                                             return {};
                                         });
        if (!read) {
            return store_error(store_, "layers", read.error());
        }
        return {};
    }

    void read_layer(uint32_t number) {
        const std::string path = fmt::format("{}/MANIFEST", number);
        const auto text = read_small_file(store_.layers.get(), path.c_str(), kMaxRecordSize);
        std::string reason;
        if (text) {
            const auto manifest = decode_manifest(*text);
            if (manifest && manifest->number == number && manifest->uuid == record_.uuid) {
                census_.layers[number] = *manifest;
                return;
            }
            reason = manifest ? fmt::format("is that of layer {} of store {}", manifest->number,
                                            manifest->uuid)
                              : manifest.error().message;
        } else if (::faccessat(store_.layers.get(), std::to_string(number).c_str(), F_OK, 0) != 0) {
            return;  // the layer has just been removed
        } else {
            reason = "cannot be read: " + error_text(text.error().code);
        }
        damaged_layers_[number] = reason;
    }

    /// Says which views do not have all that they need. Needs all of views/ and layers/.
    void check_chains() {
        std::map<uint32_t, std::vector<std::string>> missing;
        for (const auto& [number, reason] : damaged_layers_) {
            missing[number];
        }
        for (const auto& [name, top] : census_.views) {
            uint32_t number = top;
            while (number != 0 && census_.layers.contains(number)) {
                number = census_.layers.at(number).parent;
            }
            const auto present = view_record(name);
            if (number != 0 && present && present->top == top) {
                missing[number].push_back(name);
            }
        }
        for (const auto& [number, views] : missing) {
            const auto reason = damaged_layers_.find(number);
            const bool there = reason != damaged_layers_.end();
            found(Severity::kDamage, fmt::format("layers/{}{}", number, there ? "/MANIFEST" : ""),
                  fmt::format("{}. {}", there ? reason->second : "the layer is missing",
                              views.empty() ? "No view is known to need the layer"
                                            : fmt::format("These views cannot be served: {}; all "
                                                          "others can",
                                                          list(views))));
        }
        for (const auto& [name, reason] : damaged_views_) {
            found(Severity::kDamage, "views/" + name,
                  fmt::format("{}. Which layer the view has is lost; layers that no other view "
                              "needs: {}. All other views can be served; `ivmm overlay rm` removes "
                              "this one",
                              reason, list(unneeded())));
        }
        damaged_ = !missing.empty() || !damaged_views_.empty();
        for (const auto& view : served_) {
            if (const auto needed = census_.chain(census_.views.at(view))) {
                in_use_.insert(needed->begin(), needed->end());
            }
        }
    }

    std::vector<uint32_t> unneeded() const {
        const auto needed = census_.needed();
        std::vector<uint32_t> numbers;
        for (const auto& [number, manifest] : census_.layers) {
            if (!needed.contains(number)) {
                numbers.push_back(number);
            }
        }
        return numbers;
    }

    void open_lower() {
        for (const auto& path : record_.lower) {
            auto layer = Layer::open_branch(path, static_cast<uint32_t>(lower_.size() + 1));
            if (layer) {
                lower_.push_back(*std::move(layer));
            } else {
                lower_missing_ = true;
                found(Severity::kDamage, path,
                      layer.error().message + "; no view can be served before it is there again");
            }
        }
    }

    /// Opens a layer and all below it. `whole`: nothing is missing.
    Stack open_stack(uint32_t top, bool* whole) {
        std::map<uint32_t, std::shared_ptr<Layer>> chain;
        Stack stack;
        *whole = !lower_missing_;
        for (uint32_t number = top; number != 0;) {
            const auto manifest = census_.layers.find(number);
            auto layer = manifest == census_.layers.end() ? nullptr : open_layer(manifest->second);
            if (layer == nullptr) {
                *whole = false;
                break;
            }
            chain[number] = layer;
            stack.push_back(std::move(layer));
            number = manifest->second.parent;
        }
        opened_ = std::move(chain);  // the next one most often has them, too
        if (*whole) {
            stack.insert(stack.end(), lower_.begin(), lower_.end());
        }
        return stack;
    }

    std::shared_ptr<Layer> open_layer(const Manifest& manifest) const {
        const auto known = opened_.find(manifest.number);
        if (known != opened_.end()) {
            return known->second;
        }
        auto directory =
            open_directory(store_.layers.get(), std::to_string(manifest.number).c_str());
        if (!directory) {
            return nullptr;
        }
        auto layer = Layer::open(*std::move(directory), manifest, record_.style, false);
        return layer ? *layer : nullptr;
    }

    Result<void> check_layers() {
        if (!in_use_.empty()) {
            found(Severity::kNote, "layers",
                  fmt::format("in use by mounted views ({}), so only read: {}", list(served_),
                              list(in_use_)));
        }
        const auto needed = census_.needed();
        size_t done = 0;
        for (const auto& [number, manifest] : census_.layers) {
            options_.progress(static_cast<double>(done++) /
                              static_cast<double>(census_.layers.size()));
            if (!damaged_ && !needed.contains(number)) {
                continue;  // garbage, or ready for a fork and empty
            }
            const auto checked = check_one(number);
            if (!checked) {
                return store_error(store_, fmt::format("layers/{}", number), checked.error());
            }
            ++report_.layers;
        }
        return {};
    }

    PosixResult<void> check_one(uint32_t number) {
        const auto claim = open_directory(store_.layers.get(), std::to_string(number).c_str());
        if (!claim) {
            return claim.error().code == ENOENT ? PosixResult<void>()  // just removed
                                                : UnexpectedError{claim.error()};
        }
        // As Layer::claim(): whoever is to write it meanwhile is told to try again.
        const bool in_use =
            in_use_.contains(number) || ::flock(claim->get(), LOCK_EX | LOCK_NB) != 0;
        const LayerAccess access{.in_use = in_use, .mend = options_.repair && !in_use};
        IVMM_ASSIGN(const bool usable,
                    check_layer_directories(store_.layers.get(), number, access, report_));
        if (!usable) {
            return {};
        }
        bool whole = false;
        const Stack stack = open_stack(number, &whole);
        if (stack.empty()) {
            return posix_error(EIO);
        }
        return check_layer(stack, whole, access, report_);
    }

    /// What servers leave when they end, killed or not.
    Result<void> check_garbage() {
        if (!alone_ || damaged_) {
            return {};  // some of it may be in use, or needed
        }
        struct Garbage {
            std::string path, what;
        };
        std::vector<Garbage> garbage;
        const std::pair<const char*, int> folders[] = {{"layers", store_.layers.get()},
                                                       {"views", store_.views.get()}};
        for (const auto& folder : folders) {
            const auto listed =
                for_each_entry(folder.second, [&](const char* entry, unsigned char) {
                    if (entry[0] == '.') {
                        garbage.push_back(
                            {fmt::format("{}/{}", folder.first, entry), "unfinished work"});
                    }
                    return PosixResult<void>();
                });
            if (!listed) {
                return store_error(store_, folder.first, listed.error());
            }
        }
        for (const uint32_t number : unneeded()) {
            garbage.push_back({fmt::format("layers/{}", number), "a layer that no view needs"});
        }
        if (garbage.empty()) {
            return {};
        }
        if (options_.repair) {
            IVMM_TRY(collect());
        }
        for (const auto& item : garbage) {
            auto& finding = found(Severity::kNote, item.path,
                                  item.what + ": deleted when somebody opens the store");
            finding.mended =
                ::faccessat(store_.root.get(), item.path.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) != 0;
        }
        return {};
    }

    Result<void> collect() {
        opened_.clear();
        if (::flock(store_.root.get(), LOCK_UN) != 0) {
            return fail_errno("cannot unlock {}", store_.path);
        }
        // It fails where views cannot be served; what is said about that is enough.
        std::ignore = Store::open(store_.path);
        return {};
    }

    const CheckOptions& options_;
    CheckReport report_;
    StoreDirs store_;
    StoreRecord record_;
    bool alone_ = false;  ///< nobody else had the store open at the beginning
    Census census_;       ///< of what could be read
    bool damaged_ = false;
    std::map<std::string, std::string> damaged_views_;  ///< and why
    std::map<uint32_t, std::string> damaged_layers_;
    std::set<std::string> served_;
    std::set<uint32_t> in_use_;  ///< the layers of served views
    std::vector<std::shared_ptr<Layer>> lower_;
    bool lower_missing_ = false;
    std::map<uint32_t, std::shared_ptr<Layer>> opened_;
};

}  // namespace

bool CheckReport::clean() const {
    return std::ranges::all_of(findings, [](const CheckFinding& finding) {
        return finding.severity == CheckFinding::Severity::kNote || finding.mended;
    });
}

Result<CheckReport> check_store(const std::string& directory, const CheckOptions& options) {
    return StoreCheck(options).run(directory);
}

}  // namespace ivmm::storage
