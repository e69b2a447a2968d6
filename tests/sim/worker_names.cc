// What a worker does with names.

#include "tests/sim/worker.h"

#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <utility>

namespace kdfs::sim {
namespace {

constexpr uint32_t kNoReplace = 1;
constexpr uint32_t kExchange = 2;

uint32_t mode_of(ModelKind kind) {
    switch (kind) {
        case ModelKind::kFile:
            return S_IFREG | 0644;
        case ModelKind::kDirectory:
            return S_IFDIR | 0755;
        case ModelKind::kSymlink:
            return S_IFLNK | 0777;
    }
    return 0;
}

Status status_of(const Result<pb::Attr>& result) {
    return result.ok() ? Status() : Status(result.error());
}

uint64_t shown(const ModelRef& inode) { return inode ? inode->ino : Outcome::kAbsent; }

// A name lost this inode.
void drop_link(const ModelRef& inode) {
    --inode->links;
    if (inode->kind == ModelKind::kDirectory) {
        inode->removed = true;
    }
}

void put(Change::Place& place, const ModelRef& inode) {
    place.entry->inode = inode;
    if (inode && inode->kind == ModelKind::kDirectory) {
        inode->parent = place.directory.get();
    }
}

std::string place_name(const ModelRef& directory, const std::string& name) {
    return std::to_string(directory->ino) + "/" + name;
}

}  // namespace

Change Worker::change_of(const NameChoice& choice, std::string what) const {
    Change change;
    change.places.push_back({choice.directory, choice.name, nullptr});
    change.what = std::move(what) + " of " + place_name(choice.directory, choice.name);
    Outcome nothing;
    nothing.shows.push_back(shown(choice.entry->inode));
    change.outcomes.push_back(std::move(nothing));
    return change;
}

Task<void> Worker::change_names() {
    switch (random_.below(12)) {
        case 0:
        case 1:
        case 2:
            return make(choose_name(), ModelKind::kFile);
        case 3:
            return make_directory();
        case 4:
            return make(choose_name(), ModelKind::kSymlink);
        case 5:
            return make_link();
        case 6:
        case 7:
            return unlink();
        case 8:
            return remove_directory();
        default:
            return rename();
    }
}

Task<void> Worker::make_directory() {
    if (load_.model().directories().size() < load_.options().directories_max) {
        co_await make(choose_name(), ModelKind::kDirectory);
    }
}

Task<void> Worker::make(NameChoice choice, ModelKind kind) {
    Change change = change_of(choice, "creation");
    Workload* load = &load_;
    ModelRef directory = choice.directory;
    ModelName* entry = choice.entry;
    std::string target = "to " + std::to_string(load_.operations());
    Outcome made;
    made.shows.push_back(Outcome::kNew);
    made.apply = [load, directory, entry, kind, target](const std::vector<uint64_t>& found) {
        entry->inode = load->model().add(found.front(), kind);
        entry->inode->parent = directory.get();
        entry->inode->target = target;
    };
    change.outcomes.push_back(std::move(made));
    HeldChange held(load_, std::move(change));
    if (!held.held()) {
        co_return;
    }
    std::vector<Errc> expected;
    if (choice.entry->inode) {
        expected.push_back(Errc::kExists);
    }
    pb::Create request;
    request.set_parent(choice.directory->ino);
    request.set_name(choice.name);
    request.set_mode(mode_of(kind));
    request.set_exclusive(true);
    request.set_uid(1000);
    request.set_gid(1000);
    if (kind == ModelKind::kSymlink) {
        request.set_symlink(target);
    }
    begin(held.change().what);
    if (kind != ModelKind::kFile || random_.below(4) == 0) {
        auto result = co_await files_.make(std::move(request));
        finish(held, status_of(result), expected, result.ok() ? result->ino() : 0);
        co_return;
    }
    auto opened = co_await files_.create(std::move(request));
    co_await after_create(&held, std::move(opened), expected);
}

Task<void> Worker::after_create(HeldChange* held,
                                Result<client::Opened> opened,
                                std::vector<Errc> expected) {
    if (!opened.ok()) {
        finish(*held, opened.error(), expected, 0);
        co_return;
    }
    uint64_t ino = opened->attr.ino();
    client::OpenId id = opened->id;
    ModelName* entry = held->change().places.front().entry;
    finish(*held, Status(), expected, ino);
    ModelRef file = entry->inode;
    if (!file || file->ino != ino) {
        co_return;
    }
    ++file->users;
    // Not a class of its own: the count must also go down when this frame is destroyed.
    std::shared_ptr<void> use(nullptr, [file](void*) { --file->users; });
    handle_session_ = session_;
    co_await some_io(file, id, true);
    begin("close of new inode " + std::to_string(ino));
    Status closed = files_.flush(id);
    if (!closed.ok() && !refused(*file, closed.error()) && !explained(closed.error())) {
        unexpected("close of new inode " + std::to_string(ino), closed.error());
    }
    files_.release(id);
}

Task<void> Worker::make_link() {
    ModelRef file = choose_file();
    NameChoice choice = choose_name();
    if (!file) {
        co_return;
    }
    Change change = change_of(choice, "link to " + std::to_string(file->ino));
    ModelName* entry = choice.entry;
    Outcome linked;
    linked.shows.push_back(file->ino);
    linked.apply = [file, entry](const std::vector<uint64_t>&) {
        entry->inode = file;
        ++file->links;
    };
    change.outcomes.push_back(std::move(linked));
    change.inodes.push_back(file);
    std::vector<Errc> expected;
    if (choice.entry->inode) {
        expected.push_back(Errc::kExists);
        // Then nothing shows whether it happened.
        change.outcomes.pop_back();
    }
    HeldChange held(load_, std::move(change));
    if (!held.held() || file->links == 0) {
        if (held.held()) {
            held.settle(0, std::vector<uint64_t>());
        }
        co_return;
    }
    begin(held.change().what);
    InodeId parent(choice.directory->ino);
    auto result = co_await files_.link(InodeId(file->ino), parent, choice.name);
    finish(held, status_of(result), expected, file->ino);
}

Task<void> Worker::unlink() {
    NameChoice choice = choose_name();
    Change change = change_of(choice, "unlink");
    ModelRef inode = choice.entry->inode;
    ModelName* entry = choice.entry;
    std::vector<Errc> expected;
    if (!inode) {
        expected.push_back(Errc::kNotFound);
    } else if (inode->kind == ModelKind::kDirectory) {
        expected.push_back(Errc::kIsDirectory);
    } else {
        Outcome gone;
        gone.shows.push_back(Outcome::kAbsent);
        gone.apply = [inode, entry](const std::vector<uint64_t>&) {
            drop_link(inode);
            entry->inode = nullptr;
        };
        change.outcomes.push_back(std::move(gone));
        change.inodes.push_back(inode);
    }
    HeldChange held(load_, std::move(change));
    if (!held.held()) {
        co_return;
    }
    begin(held.change().what);
    Status status = co_await files_.unlink(InodeId(choice.directory->ino), choice.name);
    finish(held, status, expected, 0);
}

Task<void> Worker::remove_directory() {
    NameChoice choice = choose_name();
    Change change = change_of(choice, "rmdir");
    ModelRef inode = choice.entry->inode;
    ModelName* entry = choice.entry;
    std::vector<Errc> expected;
    if (!inode) {
        expected.push_back(Errc::kNotFound);
    } else if (inode->kind != ModelKind::kDirectory) {
        expected.push_back(Errc::kNotDirectory);
    } else {
        change.closing = inode;
        change.moves_directory = true;
        Outcome gone;
        gone.shows.push_back(Outcome::kAbsent);
        gone.apply = [inode, entry](const std::vector<uint64_t>&) {
            drop_link(inode);
            entry->inode = nullptr;
        };
        change.outcomes.push_back(std::move(gone));
    }
    HeldChange held(load_, std::move(change));
    if (!held.held()) {
        co_return;
    }
    if (held.change().closing && !inode->empty()) {
        expected.push_back(Errc::kNotEmpty);
    }
    begin(held.change().what);
    Status status = co_await files_.rmdir(InodeId(choice.directory->ino), choice.name);
    finish(held, status, expected, 0);
}

Task<void> Worker::rename() {
    NameChoice from = choose_name();
    for (int i = 0; i < 5 && !from.entry->inode; ++i) {
        from = choose_name();
    }
    NameChoice to = choose_name();
    if (from.entry != to.entry) {
        co_await rename_to(std::move(from), std::move(to));
    }
}

void Worker::describe_rename(Change& change,
                             const NameChoice& from,
                             const NameChoice& to,
                             bool swap) {
    ModelRef source = from.entry->inode;
    ModelRef target = to.entry->inode;
    change.places.push_back({to.directory, to.name, nullptr});
    change.outcomes.front().shows.push_back(shown(target));
    for (const ModelRef& inode : {source, target}) {
        bool directory = inode && inode->kind == ModelKind::kDirectory;
        change.moves_directory |= directory;
        if (inode && !directory) {
            change.inodes.push_back(inode);
        }
    }
    if (source == target) {
        change.inodes.clear();
        change.outcomes.push_back(change.outcomes.front());
        return;
    }
    if (!swap && target && target->kind == ModelKind::kDirectory) {
        change.closing = target;
    }
    Outcome moved;
    moved.shows = {swap ? shown(target) : Outcome::kAbsent, shown(source)};
    Change::Place first{from.directory, from.name, from.entry};
    Change::Place second{to.directory, to.name, to.entry};
    moved.apply = [first, second, source, target, swap](const std::vector<uint64_t>&) mutable {
        if (!swap && target) {
            drop_link(target);
        }
        put(first, swap ? target : nullptr);
        put(second, source);
    };
    change.outcomes.push_back(std::move(moved));
}

std::vector<Errc> Worker::rename_errors(const NameChoice& from,
                                        const NameChoice& to,
                                        uint32_t flags) {
    const ModelRef& source = from.entry->inode;
    const ModelRef& target = to.entry->inode;
    std::vector<Errc> expected;
    bool source_is_directory = source && source->kind == ModelKind::kDirectory;
    bool target_is_directory = target && target->kind == ModelKind::kDirectory;
    if (!source) {
        expected.push_back(Errc::kNotFound);
    }
    if (flags == kNoReplace && target) {
        expected.push_back(Errc::kExists);
    }
    if (flags == kExchange && !target) {
        expected.push_back(Errc::kNotFound);
    }
    if (source_is_directory && TreeModel::below(to.directory.get(), source.get())) {
        expected.push_back(Errc::kInvalidArgument);
    }
    if (target_is_directory && TreeModel::below(from.directory.get(), target.get())) {
        expected.push_back(flags == kExchange ? Errc::kInvalidArgument : Errc::kNotEmpty);
    }
    if (flags == 0 && source && target && source != target) {
        if (source_is_directory && !target_is_directory) {
            expected.push_back(Errc::kNotDirectory);
        } else if (!source_is_directory && target_is_directory) {
            expected.push_back(Errc::kIsDirectory);
        } else if (target_is_directory && !target->empty()) {
            expected.push_back(Errc::kNotEmpty);
        }
    }
    return expected;
}

Task<void> Worker::rename_to(NameChoice from, NameChoice to) {
    uint64_t dice = random_.below(10);
    uint32_t flags = dice < 7 ? 0 : dice < 9 ? kNoReplace : kExchange;
    Change change = change_of(from, "rename");
    change.what += " to " + place_name(to.directory, to.name) + " flags " + std::to_string(flags);
    describe_rename(change, from, to, flags == kExchange);
    HeldChange held(load_, std::move(change));
    if (!held.held()) {
        co_return;
    }
    std::vector<Errc> expected = rename_errors(from, to, flags);
    pb::Rename request;
    request.set_parent(from.directory->ino);
    request.set_name(from.name);
    request.set_new_parent(to.directory->ino);
    request.set_new_name(to.name);
    request.set_flags(flags);
    begin(held.change().what);
    Status status = co_await files_.rename(std::move(request));
    finish(held, status, expected, 0);
}

Task<void> Worker::look() {
    NameChoice choice = choose_name();
    switch (random_.below(4)) {
        case 0:
            return read_directory(choice.directory);
        case 1:
            if (choice.entry->inode) {
                return get_attributes(choice.entry->inode);
            }
            return look_up(std::move(choice));
        default:
            return look_up(std::move(choice));
    }
}

Task<Result<uint64_t>> Worker::find(InodeId directory, std::string name) {
    auto attr = co_await files_.lookup(directory, std::move(name));
    if (attr.ok()) {
        co_return attr->ino();
    }
    if (attr.error().code == Errc::kNotFound) {
        co_return uint64_t{0};
    }
    co_return attr.error();
}

Task<void> Worker::look_up(NameChoice choice) {
    if (choice.entry->held || choice.directory->closing) {
        co_return;
    }
    uint64_t version = choice.entry->version;
    begin("lookup of " + place_name(choice.directory, choice.name));
    auto found = co_await find(InodeId(choice.directory->ino), choice.name);
    std::string what = "lookup of " + place_name(choice.directory, choice.name);
    if (choice.directory->removed || choice.directory->closing ||
        choice.entry->version != version) {
        co_return;
    }
    if (!found.ok()) {
        if (!explained(found.error())) {
            unexpected(what, found.error());
        }
        co_return;
    }
    if (!lost() && *found != shown(choice.entry->inode)) {
        load_.verdict().wrong("client " + std::to_string(client_) + ", " + what + " found inode " +
                              std::to_string(*found) + ", expected " +
                              std::to_string(shown(choice.entry->inode)));
    }
}

Task<Result<std::vector<std::string>>> Worker::list_all(InodeId directory) {
    constexpr int kPagesMax = 100;
    std::vector<std::string> names;
    uint64_t epoch = files_.names_epoch(directory);
    std::string after;
    for (int page = 0; page < kPagesMax; ++page) {
        auto reply = co_await files_.list(directory, after);
        if (!reply.ok()) {
            co_return std::move(reply).error();
        }
        for (const pb::DirEntry& entry : reply->entries()) {
            names.push_back(entry.name());
            after = entry.name();
        }
        if (reply->eof()) {
            files_.listed_all(directory, epoch);
            co_return names;
        }
    }
    co_return Error(Errc::kTooBig, "the listing never ends");
}

Task<void> Worker::read_directory(ModelRef directory) {
    std::map<std::string, uint64_t> before;
    for (const auto& [name, entry] : directory->names) {
        if (!entry.held) {
            before.emplace(name, entry.version);
        }
    }
    begin("readdir of " + std::to_string(directory->ino));
    auto names = co_await list_all(InodeId(directory->ino));
    if (directory->removed || directory->closing) {
        co_return;
    }
    std::string what = "listing of directory " + std::to_string(directory->ino);
    if (!names.ok()) {
        if (!explained(names.error())) {
            unexpected(what, names.error());
        }
        co_return;
    }
    if (lost()) {
        co_return;
    }
    std::string who = "client " + std::to_string(client_) + ", " + what;
    for (const auto& [name, entry] : directory->names) {
        auto version = before.find(name);
        if (version == before.end() || entry.version != version->second) {
            continue;
        }
        auto times = std::count(names->begin(), names->end(), name);
        if (times != (entry.inode ? 1 : 0)) {
            std::string wrong = who;
            wrong += " has '" + name + "' " + std::to_string(times) + " times, expected ";
            wrong += entry.inode ? "once" : "not at all";
            load_.verdict().wrong(wrong);
        }
    }
    for (const std::string& name : *names) {
        if (!directory->names.contains(name)) {
            std::string wrong = who;
            wrong += " has the name '" + name + "', which nobody made";
            load_.verdict().wrong(wrong);
        }
    }
}

Task<void> Worker::resolve_doubts(TimePoint before) {
    Change change;
    while (load_.model().take_doubt(before, change)) {
        auto held = std::make_unique<HeldChange>(load_, std::move(change), HeldChange::Held());
        change = Change();
        bool resolved = co_await resolve_one(held.get());
        if (!resolved) {
            co_return;
        }
    }
}

Task<bool> Worker::resolve_one(HeldChange* held) {
    begin("resolve");
    std::vector<uint64_t> found;
    for (size_t i = 0; i < held->change().places.size(); ++i) {
        InodeId directory(held->change().places[i].directory->ino);
        std::string name = held->change().places[i].name;
        auto ino = co_await find(directory, name);
        if (!ino.ok()) {
            if (!explained(ino.error())) {
                unexpected("lookup after " + held->change().what, ino.error());
            }
            co_return false;
        }
        found.push_back(*ino);
    }
    if (lost()) {
        co_return false;
    }
    settle_by(*held, found);
    co_return true;
}

// Which outcome do the names show?
void Worker::settle_by(HeldChange& held, const std::vector<uint64_t>& found) {
    const std::vector<Outcome>& outcomes = held.change().outcomes;
    for (size_t outcome = outcomes.size(); outcome-- > 0;) {
        const std::vector<uint64_t>& shows = outcomes[outcome].shows;
        bool fits = true;
        for (size_t i = 0; i < shows.size(); ++i) {
            bool is_new = found[i] != 0 && !load_.model().known(found[i]);
            fits &= shows[i] == Outcome::kNew ? is_new : shows[i] == found[i];
        }
        if (fits) {
            held.settle(outcome, found);
            return;
        }
    }
    std::string what =
        "after " + held.change().what + ", whose outcome was unknown, the names show";
    for (uint64_t ino : found) {
        what += " " + std::to_string(ino);
    }
    load_.verdict().wrong(what + ", which no outcome explains");
}

Task<void> Worker::verify_tree() {
    std::vector<ModelRef> directories = load_.model().directories();
    for (const ModelRef& directory : directories) {
        co_await verify_directory(directory);
    }
}

Task<void> Worker::verify_directory(ModelRef directory) {
    co_await read_directory(directory);
    std::vector<std::string> names;
    names.reserve(directory->names.size());
    for (const auto& [name, entry] : directory->names) {
        names.push_back(name);
    }
    for (const std::string& name : names) {
        NameChoice choice;
        choice.directory = directory;
        choice.name = name;
        choice.entry = &directory->names[name];
        ModelRef inode = choice.entry->inode;
        co_await look_up(std::move(choice));
        if (inode && inode->kind == ModelKind::kFile) {
            co_await verify_file(std::move(inode));
        } else if (inode) {
            co_await get_attributes(std::move(inode));
        }
    }
}

}  // namespace kdfs::sim
