#include "storage/tools/check_layer.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <set>
#include <vector>

#include "base/unique_fd.h"
#include "storage/block/block_file.h"
#include "storage/layer/files.h"
#include "storage/union/object.h"

namespace ivmm::storage {
namespace {

using Severity = CheckFinding::Severity;

constexpr const char* kGivesEio =
    "opening the file gives an error (EIO) in every view that shows it; all else works";

bool is_number(std::string_view text) {
    uint64_t number = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
    return !text.empty() && parsed.ec == std::errc() && parsed.ptr == text.data() + text.size();
}

/// As link_key() makes them.
bool is_link_key(std::string_view name) {
    const size_t dash = name.find('-');
    return dash != std::string_view::npos && is_number(name.substr(0, dash)) &&
           is_number(name.substr(dash + 1));
}

class LayerCheck {
 public:
    LayerCheck(StackSpan stack, bool whole, const LayerAccess& access, CheckReport& report)
        : stack_(stack),
          layer_(*stack.front()),
          whole_(whole),
          access_(access),
          report_(report),
          folder_(fmt::format("layers/{}", layer_.number())) {}

    PosixResult<void> run() {
        IVMM_TRY(check_links());
        std::vector<std::string> directories{""};
        while (!directories.empty()) {
            const std::string path = std::move(directories.back());
            directories.pop_back();
            IVMM_TRY(check_directory(path, &directories));
        }
        // Only those who change the layer have something there that is not garbage.
        if (!access_.in_use) {
            IVMM_TRY(check_work());
            IVMM_TRY(check_maps());
        }
        return {};
    }

 private:
    struct Object {
        At at;
        std::string path;  ///< from the store's directory
        struct stat attributes {};
    };

    CheckFinding& found(Severity severity, std::string path, std::string what) {
        report_.findings.push_back({severity, std::move(path), std::move(what)});
        return report_.findings.back();
    }
    /// Something that nobody needs: deleted, if that is allowed.
    PosixResult<void> leftover(std::string path, std::string what, int dir, const char* name) {
        auto& finding = found(Severity::kLeftover, std::move(path), std::move(what));
        if (access_.mend) {
            IVMM_TRY(remove_tree(dir, name));
            finding.mended = true;
        }
        return {};
    }

    /// Whether an error is only because somebody who uses the layer has removed the object.
    bool is_gone(const Object& object) const {
        const auto now = stat_object(object.at);
        return access_.in_use && (!now || now->st_ino != object.attributes.st_ino);
    }

    PosixResult<void> check_directory(const std::string& path,
                                      std::vector<std::string>* directories) {
        const auto directory = open_directory(layer_.tree(), path.empty() ? "." : path.c_str());
        if (!directory) {
            if (access_.in_use && directory.error().code == ENOENT) {
                return {};
            }
            complete_ = false;
            found(Severity::kDamage, join_path(folder_ + "/tree", path),
                  "the directory cannot be read: " + error_text(directory.error().code));
            return {};
        }
        return for_each_entry(directory->get(),
                              [&](const char* name, unsigned char type) -> PosixResult<void> {
                                  const std::string child = join_path(path, name);
                                  if (type == DT_DIR) {
                                      directories->push_back(child);
                                  }
                                  return check_object({directory->get(), name}, "tree/" + child);
                              });
    }

    PosixResult<void> check_object(At at, const std::string& path) {
        Object object{at, folder_ + "/" + path};
        const auto attributes = stat_object(at);
        if (!attributes) {
            if (!access_.in_use || attributes.error().code != ENOENT) {
                complete_ = false;
                found(Severity::kDamage, object.path,
                      "cannot be looked at: " + error_text(attributes.error().code));
            }
            return {};
        }
        object.attributes = *attributes;
        ++report_.objects;
        if (object.attributes.st_nlink > 1 && !S_ISDIR(object.attributes.st_mode) &&
            !seen_.insert(object.attributes.st_ino).second) {
            return {};
        }
        if (S_ISDIR(object.attributes.st_mode)) {
            check_marks(object);
            check_redirect(object, path.substr(std::string_view("tree").size()));
        } else if (S_ISREG(object.attributes.st_mode)) {
            check_marks(object);
            check_block_part(object);
        }
        return {};
    }

    /// Looks at the marks by their names, so as to see also what has no effect.
    void check_marks(const Object& object) {
        const auto names = list_xattrs(object.at);
        if (!names) {
            if (!is_gone(object)) {
                complete_ = false;
                found(Severity::kDamage, object.path,
                      "its extended attributes cannot be read: " + error_text(names.error().code));
            }
            return;
        }
        for (const auto& name : *names) {
            if (!Marks::is_private(name)) {
                continue;
            }
            const auto value = get_xattr(object.at, name);
            if (value && *value) {
                check_mark(object, name, **value);
            }
        }
    }

    void check_mark(const Object& object, std::string_view name, std::string_view value) {
        if (name.ends_with(".overlay.opaque") && value != "y" && value != "x") {
            found(Severity::kDamage, object.path,
                  fmt::format("{} is neither \"y\" nor \"x\": whether the directory was to hide "
                              "what is below is lost, and that shows",
                              name));
        } else if (name.ends_with(".overlay.whiteout")) {
            found(Severity::kDamage, object.path,
                  "is a whiteout of a kind (an extended attribute) that is not supported: an "
                  "empty file shows where nothing should");
        } else if (name.ends_with(".overlay.metacopy")) {
            found(Severity::kDamage, object.path,
                  "was made by an overlayfs with metacopy=on, which is not supported: its content "
                  "is below, and zeroes show");
        } else if ((name.ends_with(".ivmm.inode") || name.ends_with(".ivmm.links")) &&
                   !is_number(value)) {
            found(Severity::kDamage, object.path,
                  fmt::format("{} is no number: the file gets another inode number or link count; "
                              "its content is not affected",
                              name));
        }
    }

    void check_redirect(const Object& object, const std::string& path) {
        const auto redirect = layer_.marks().redirect(object.at);
        if (!redirect) {
            if (!is_gone(object)) {
                found(
                    Severity::kDamage, object.path,
                    "where its lower part is cannot be read: " + error_text(redirect.error().code) +
                        "; the directory gives an error in every view that shows it; all else "
                        "works");
            }
            return;
        }
        if (!*redirect || !whole_ || layer_.marks().is_opaque(object.at)) {
            return;
        }
        const auto merged = resolve(stack_, path);
        if (merged && *merged && (*merged)->places.size() == 1 && !is_gone(object)) {
            found(Severity::kDamage, object.path,
                  fmt::format("the directory below that it was renamed from, {}, is missing: only "
                              "what was written since shows",
                              **redirect));
        }
    }

    void check_block_part(const Object& object) {
        const auto part = layer_.marks().block_part(object.at);
        if (!part) {
            if (!is_gone(object)) {
                complete_ = false;
                found(Severity::kDamage, object.path,
                      fmt::format("its mark as a part of a block file cannot be used: {}; {}",
                                  error_text(part.error().code), kGivesEio));
            }
            return;
        }
        if (!*part) {
            return;
        }
        ++report_.block_files;
        const auto [owner, first] = maps_.emplace((*part)->map, object.path);
        if (!first) {
            found(Severity::kDamage, object.path,
                  fmt::format("has the same block map as {}: which of its blocks are here is lost",
                              owner->second));
        }
        check_map(object, (*part)->map);
        check_lower(object, (*part)->lower_path);
    }

    void check_map(const Object& object, const std::string& name) {
        const UniqueFd map(
            ::openat(layer_.maps(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
        if (!map) {
            const int code = errno;
            if (!is_gone(object)) {
                found(Severity::kDamage, object.path,
                      fmt::format("its block map, maps/{}, cannot be opened: {}. Which blocks were "
                                  "written in this layer is lost; {}",
                                  name, error_text(code), kGivesEio));
            }
            return;
        }
        const auto map_report = examine_map(map.get());
        if (!map_report) {
            found(Severity::kDamage, object.path,
                  fmt::format("maps/{}: {}. Which blocks were written in this layer is lost; {}",
                              name, map_report.error().message, kGivesEio));
            return;
        }
        bool corrupt = false;
        for (const auto& range : map_report->corrupt) {
            const auto size = static_cast<uint64_t>(object.attributes.st_size);
            if (range.offset >= size) {
                continue;  // nobody reads it
            }
            corrupt = true;
            found(Severity::kDamage, object.path,
                  fmt::format("maps/{} is corrupt: which of the bytes {} to {} were written in "
                              "this layer is lost; {}",
                              name, range.offset, std::min(range.offset + range.length, size) - 1,
                              kGivesEio));
        }
        if (map_report->torn_pages != 0 && !corrupt && !access_.in_use) {
            found(Severity::kNote, object.path,
                  fmt::format("maps/{}: a crash has cut a flush short ({} pages); the state before "
                              "it is in use",
                              name, map_report->torn_pages));
        }
    }

    void check_lower(const Object& object, const std::string& path) {
        if (!whole_) {
            return;
        }
        const auto lower = resolve(below(stack_, &layer_), path);
        std::string trouble;
        if (!lower) {
            trouble = "cannot be looked up: " + error_text(lower.error().code);
        } else if (!*lower) {
            trouble = "is missing";
        } else if (!S_ISREG((*lower)->attributes.st_mode)) {
            trouble = "is not a regular file";
        } else {
            return;
        }
        if (!is_gone(object)) {
            found(Severity::kDamage, object.path,
                  fmt::format("what it is a part of, {} in the layers below, {}; {}", path, trouble,
                              kGivesEio));
        }
    }

    PosixResult<void> check_links() {
        return for_each_entry(
            layer_.links(), [&](const char* name, unsigned char /*type*/) -> PosixResult<void> {
                const std::string path = fmt::format("links/{}", name);
                const At at{layer_.links(), name};
                if (!is_link_key(name)) {
                    found(Severity::kDamage, folder_ + "/" + path,
                          "is not the name of a hard-linked file: which one it is is lost");
                } else if (!access_.in_use && layer_.marks().link_count(at) == 0U) {
                    return leftover(folder_ + "/" + path,
                                    "a hard-linked file that has lost its last name", at.dir, name);
                }
                return check_object(at, path);
            });
    }

    PosixResult<void> check_work() {
        return for_each_entry(layer_.work(),
                              [&](const char* name, unsigned char /*type*/) -> PosixResult<void> {
                                  return leftover(fmt::format("{}/work/{}", folder_, name),
                                                  "unfinished work", layer_.work(), name);
                              });
    }

    PosixResult<void> check_maps() {
        if (!complete_) {
            return {};  // something that could not be read may refer to any of them
        }
        return for_each_entry(
            layer_.maps(), [&](const char* name, unsigned char /*type*/) -> PosixResult<void> {
                if (maps_.contains(name)) {
                    return {};
                }
                return leftover(fmt::format("{}/maps/{}", folder_, name),
                                "a block map that no file refers to", layer_.maps(), name);
            });
    }

    const StackSpan stack_;
    const Layer& layer_;
    const bool whole_;
    const LayerAccess access_;
    CheckReport& report_;
    const std::string folder_;
    std::set<ino_t> seen_;                     ///< of files with several names
    std::map<std::string, std::string> maps_;  ///< those referred to, and by what
    bool complete_ = true;                     ///< all references to maps are known
};

}  // namespace

PosixResult<bool> check_layer_directories(int layers_dir, uint32_t number,
                                          const LayerAccess& access, CheckReport& report) {
    bool usable = true;
    for (const char* name : {"tree", "maps", "links", "work"}) {
        const std::string path = fmt::format("{}/{}", number, name);
        const auto opened = open_directory(layers_dir, path.c_str());
        if (opened) {
            continue;
        }
        const int code = opened.error().code;
        const bool is_tree = std::string_view(name) == "tree";
        CheckFinding finding{Severity::kDamage, "layers/" + path,
                             "cannot be opened: " + error_text(code)};
        finding.what += is_tree ? "; all that was written in this layer is lost, and no view that "
                                  "needs it can be served"
                                : "; what was in it is lost, and no view that needs it can be "
                                  "served before it is there again";
        if (!is_tree && code == ENOENT && access.mend) {
            if (::mkdirat(layers_dir, path.c_str(), S_IRWXU) != 0) {
                return last_posix_error();
            }
            finding.mended = true;
        } else {
            usable = false;
        }
        report.findings.push_back(std::move(finding));
    }
    return usable;
}

PosixResult<void> check_layer(StackSpan stack, bool whole, const LayerAccess& access,
                              CheckReport& report) {
    return LayerCheck(stack, whole, access, report).run();
}

}  // namespace ivmm::storage
