// A restricted pickle machine (Python's Lib/pickle.py and pickletools.py define the opcodes).
#include "formats/pickle.h"

#include <cstddef>
#include <cstring>
#include <unordered_map>

#include "core/error.h"
#include "formats/named_tensors.h"

namespace rep {

namespace {

// A state dict of 1,000 tensors makes some 20,000 values.
constexpr size_t kMaxValues = 1 << 20;
// What is copied from value to value stays short, so that a small program cannot fill the memory.
constexpr size_t kMaxKeyBytes = 256;

using Value = PickleValue;
using Kind = Value::Kind;

class Machine {
 public:
  Machine(const std::string& path, const std::string& program, std::deque<Value>& arena)
      : path_(path), next_(program.data()), end_(next_ + program.size()), arena_(arena) {}

  /// The value that the program leaves.
  const Value* run() {
    while (true) {
      const auto opcode = static_cast<unsigned char>(*take(1));
      if (opcode == '.') return pop();  // STOP
      step(opcode);
    }
  }

 private:
  void step(unsigned char opcode) {
    if (!push_literal(opcode) && !use_container(opcode) && !use_memo(opcode) &&
        !use_object(opcode)) {
      fail("the pickle has opcode " + std::to_string(opcode) + ", which no state dict needs");
    }
  }

  // Each of these says whether the opcode was one of its own.
  bool push_literal(unsigned char opcode) {
    switch (opcode) {
      case 'N':
      case 0x88:
      case 0x89:  // NONE NEWTRUE NEWFALSE
        push({});
        return true;
      case 'G':  // BINFLOAT
        take(8);
        push({});
        return true;
      case 'J':  // BININT
        push_integer(number<int32_t>());
        return true;
      case 'K':  // BININT1
        push_integer(number<uint8_t>());
        return true;
      case 'M':  // BININT2
        push_integer(number<uint16_t>());
        return true;
      case 0x8a:  // LONG1
        push(long_integer());
        return true;
      case 'X':  // BINUNICODE
        push_text(Kind::kText, text(number<uint32_t>()));
        return true;
      case 'c': {  // GLOBAL
        const std::string module = line();
        push_text(Kind::kGlobal, module + " " + line());
        return true;
      }
      default:
        return false;
    }
  }

  bool use_container(unsigned char opcode) {
    switch (opcode) {
      case '(':  // MARK
        marks_.push_back(stack_.size());
        return true;
      case '}':  // EMPTY_DICT
        push_items(Kind::kDict, {});
        return true;
      case ']':  // EMPTY_LIST
        push_items(Kind::kList, {});
        return true;
      case ')':  // EMPTY_TUPLE
        push_items(Kind::kTuple, {});
        return true;
      case 't':  // TUPLE
        push_items(Kind::kTuple, pop_mark());
        return true;
      case 0x85:
      case 0x86:
      case 0x87:  // TUPLE1 TUPLE2 TUPLE3
        push_items(Kind::kTuple, pop_many(opcode - 0x84));
        return true;
      case 'a':  // APPEND
        extend(Kind::kList, pop_many(1));
        return true;
      case 'e':  // APPENDS
        extend(Kind::kList, pop_mark());
        return true;
      case 's':  // SETITEM
        extend(Kind::kDict, pop_many(2));
        return true;
      case 'u':  // SETITEMS
        extend(Kind::kDict, pop_mark());
        return true;
      default:
        return false;
    }
  }

  bool use_memo(unsigned char opcode) {
    switch (opcode) {
      case 'q':  // BINPUT
        memoize(number<uint8_t>());
        return true;
      case 'r':  // LONG_BINPUT
        memoize(number<uint32_t>());
        return true;
      case 'h':  // BINGET
        recall(number<uint8_t>());
        return true;
      case 'j':  // LONG_BINGET
        recall(number<uint32_t>());
        return true;
      default:
        return false;
    }
  }

  bool use_object(unsigned char opcode) {
    switch (opcode) {
      case 0x80:  // PROTO
        if (*take(1) != 2) fail("the pickle is not of protocol 2, torch.save's default");
        return true;
      case 'Q':  // BINPERSID
        push(storage(*pop()));
        return true;
      case 'R':
      case 0x81: {  // REDUCE NEWOBJ
        const Value* arguments = pop();
        push(call(*pop(), *arguments));
        return true;
      }
      case 'b':  // BUILD
        build(*pop());
        return true;
      default:
        return false;
    }
  }

  // ('storage', type, key, location, items); the location is no matter, everything is read to the
  // CPU.
  Value storage(const Value& id) {
    const auto& items = id.items;
    if (!id.is(Kind::kTuple) || items.size() != 5 || items[0]->text != "storage" ||
        !items[1]->is(Kind::kGlobal) || !items[2]->is(Kind::kText) ||
        !items[4]->is(Kind::kInteger) || items[4]->integer < 0 ||
        items[1]->text.size() + items[2]->text.size() > kMaxKeyBytes) {
      fail("a storage is not described as torch.save does");
    }
    Value value;
    value.kind = Kind::kStorage;
    value.storage_type = items[1]->text;
    value.text = items[2]->text;
    value.integer = items[4]->integer;
    return value;
  }

  // What calling `function` gives. Only three functions are known; none of them runs anything.
  Value call(const Value& function, const Value& arguments) {
    const auto& items = arguments.items;
    if (!function.is(Kind::kGlobal) || !arguments.is(Kind::kTuple)) return {};
    if (function.text == "collections OrderedDict" && items.empty()) {
      Value dict;
      dict.kind = Kind::kDict;
      return dict;
    }
    if (function.text == "torch._utils _rebuild_parameter" && !items.empty() &&
        items[0]->is(Kind::kTensor)) {
      return *items[0];
    }
    if (function.text == "torch._utils _rebuild_tensor_v2" && items.size() >= 4 &&
        items[0]->is(Kind::kStorage)) {
      return tensor(items);
    }
    return {};
  }

  // (storage, offset, shape, strides, ...)
  Value tensor(const std::vector<Value*>& items) {
    Value value;
    value.kind = Kind::kTensor;
    value.storage = items[0];
    value.offset = items[1]->integer;
    value.shape = integers(*items[2]);
    value.strides = integers(*items[3]);
    if (!items[1]->is(Kind::kInteger) || value.shape.size() != value.strides.size()) {
      fail("a tensor is not described as torch.save does");
    }
    return value;
  }

  std::vector<int64_t> integers(const Value& tuple) {
    std::vector<int64_t> integers;
    if (tuple.items.size() > kMaxDimensions) fail("a tensor has more than 16 dimensions");
    for (const Value* item : tuple.items) {
      if (!tuple.is(Kind::kTuple) || !item->is(Kind::kInteger)) {
        fail("a tensor is not described as torch.save does");
      }
      integers.push_back(item->integer);
    }
    return integers;
  }

  // ---- the program ----

  const char* take(size_t bytes) {
    if (bytes > static_cast<size_t>(end_ - next_)) fail("the pickle is cut short");
    const char* at = next_;
    next_ += bytes;
    return at;
  }

  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)), sizeof(T));
    return value;
  }

  // A length, then that many bytes of little-endian two's complement. One of more than 64 bits (the
  // seed of a random number generator) describes no tensor.
  Value long_integer() {
    const size_t bytes = number<uint8_t>();
    const char* digits = take(bytes);
    Value value;
    if (bytes > sizeof(int64_t)) return value;
    const bool negative = bytes > 0 && (digits[bytes - 1] & 0x80) != 0;
    value.kind = Kind::kInteger;
    value.integer = negative ? -1 : 0;
    std::memcpy(&value.integer, digits, bytes);
    return value;
  }

  std::string text(size_t bytes) { return std::string(take(bytes), bytes); }

  std::string line() {
    const void* newline = std::memchr(next_, '\n', static_cast<size_t>(end_ - next_));
    if (!newline) fail("the pickle is cut short");
    std::string line(next_, static_cast<const char*>(newline));
    next_ += line.size() + 1;
    return line;
  }

  // ---- the stack ----

  void push(Value value) {
    if (arena_.size() == kMaxValues) fail("the pickle has more than a million values");
    arena_.push_back(std::move(value));
    stack_.push_back(&arena_.back());
  }
  void push_integer(int64_t integer) {
    Value value;
    value.kind = Kind::kInteger;
    value.integer = integer;
    push(std::move(value));
  }
  void push_text(Kind kind, std::string text) {
    Value value;
    value.kind = kind;
    value.text = std::move(text);
    push(std::move(value));
  }
  void push_items(Kind kind, std::vector<Value*> items) {
    Value value;
    value.kind = kind;
    value.items = std::move(items);
    push(std::move(value));
  }

  // Nothing below the last mark can be reached.
  size_t available() const { return stack_.size() - (marks_.empty() ? 0 : marks_.back()); }

  Value* top() {
    if (available() == 0) fail("the pickle takes more than it has");
    return stack_.back();
  }
  Value* pop() {
    Value* value = top();
    stack_.pop_back();
    return value;
  }
  std::vector<Value*> pop_many(int count) {
    const auto n = static_cast<std::ptrdiff_t>(count);
    if (available() < static_cast<size_t>(n)) fail("the pickle takes more than it has");
    std::vector<Value*> values(stack_.end() - n, stack_.end());
    stack_.resize(stack_.size() - values.size());
    return values;
  }
  std::vector<Value*> pop_mark() {
    if (marks_.empty()) fail("the pickle takes more than it has");
    std::vector<Value*> values = pop_many(static_cast<int>(available()));
    marks_.pop_back();
    return values;
  }

  // Adds to the container below; what an opaque object is given is dropped.
  void extend(Kind kind, const std::vector<Value*>& values) {
    Value& container = *top();
    if (container.is(Kind::kOpaque) || container.is(Kind::kObject)) return;
    if (!container.is(kind) || (kind == Kind::kDict && values.size() % 2 != 0)) {
      fail("the pickle adds to what is no container");
    }
    container.items.insert(container.items.end(), values.begin(), values.end());
  }

  // An object's attributes, where its state is nothing else; a dict's own attributes are no matter.
  void build(const Value& state) {
    Value& object = *top();
    if (!object.is(Kind::kOpaque) || !state.is(Kind::kDict)) return;
    // One dict may be the state of many objects.
    copied_ += state.items.size();
    if (copied_ > kMaxValues) fail("the pickle has more than a million values");
    object.kind = Kind::kObject;
    object.items = state.items;
  }

  void memoize(uint32_t index) {
    if (memo_.size() == kMaxValues) fail("the pickle has more than a million values");
    memo_[index] = top();
  }
  void recall(uint32_t index) {
    const auto found = memo_.find(index);
    if (found == memo_.end()) fail("the pickle recalls what it never stored");
    stack_.push_back(found->second);
  }

  [[noreturn]] void fail(const std::string& problem) const {
    throw Error(
        path_ + ": " + problem +
        ": fetch the file again, or save it anew in Python with torch.save(state_dict, path)");
  }

  const std::string& path_;
  const char* next_;
  const char* end_;
  std::deque<Value>& arena_;
  std::vector<Value*> stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint32_t, Value*> memo_;
  size_t copied_ = 0;  // items, by BUILD
};

}  // namespace

Pickle::Pickle(const std::string& path, const std::string& program)
    : root_(Machine(path, program, arena_).run()) {}

}  // namespace rep
