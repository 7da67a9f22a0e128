#include "engine/text/chat_parser.h"

#include <algorithm>
#include <array>
#include <initializer_list>

#include "engine/text/chat_builtins.h"
#include "engine/text/chat_lexer.h"

namespace polyad {

namespace {

using Token = ChatToken::Kind;
using Expr = ChatExpr::Kind;
using Stmt = ChatStatement::Kind;

constexpr size_t kMaxArgs = 64;

class Parser {
 public:
  explicit Parser(std::vector<ChatToken> tokens) : tokens_(std::move(tokens)) {}

  StatusOr<ChatBlock> Template() {
    POLYAD_ASSIGN_OR_RETURN(ChatBlock block, Block({}));
    if (!At(Token::kEnd)) return Error("unexpected " + Describe());
    return block;
  }

 private:
  // ---- tokens ----
  const ChatToken& Now() const { return tokens_[at_]; }
  bool At(Token kind) const { return Now().kind == kind; }
  bool AtOperator(std::string_view op) const { return At(Token::kOperator) && Now().text == op; }
  bool AtName(std::string_view name) const { return At(Token::kName) && Now().text == name; }
  bool NextIsOperator(std::string_view op) const {
    return at_ + 1 < tokens_.size() && tokens_[at_ + 1].kind == Token::kOperator &&
           tokens_[at_ + 1].text == op;
  }
  ChatToken Take() { return At(Token::kEnd) ? Now() : tokens_[at_++]; }
  bool TakeOperator(std::string_view op) {
    if (!AtOperator(op)) return false;
    ++at_;
    return true;
  }
  bool TakeName(std::string_view name) {
    if (!AtName(name)) return false;
    ++at_;
    return true;
  }
  std::string Describe() const {
    return At(Token::kEnd)      ? "end of template"
           : Now().text.empty() ? "tag"
                                : "\"" + Now().text.substr(0, 40) + "\"";
  }
  Status Error(std::string_view what) const {
    return InvalidArgument("chat template, line %d: %s", Now().line, what);
  }
  Status Refuse(std::string_view what) const {
    return Unimplemented("chat template, line %d: %s is not served", Now().line, what);
  }
  Status Expect(std::string_view op) {
    return TakeOperator(op) ? absl::OkStatus()
                            : Error("expected \"" + std::string(op) + "\", got " + Describe());
  }
  Status ExpectBlockEnd() {
    if (!At(Token::kBlockEnd)) return Error("expected the tag's end, got " + Describe());
    ++at_;
    return absl::OkStatus();
  }
  StatusOr<std::string> Name() {
    if (!At(Token::kName)) return Error("expected a name, got " + Describe());
    return Take().text;
  }

  // Nesting of blocks and brackets: the parser's own recursion.
  struct Nested {
    explicit Nested(int* depth) : depth_(depth) { ++*depth_; }
    ~Nested() { --*depth_; }
    Nested(const Nested&) = delete;
    Nested& operator=(const Nested&) = delete;
    int* depth_;
  };
  Status CheckNesting() const {
    return nesting_ > kMaxChatDepth ? Error(absl::StrFormat("nested over %d deep", kMaxChatDepth))
                                    : absl::OkStatus();
  }

  // ---- statements ----
  bool AtAnyName(std::initializer_list<std::string_view> names) const {
    return std::any_of(names.begin(), names.end(),
                       [&](std::string_view name) { return AtName(name); });
  }

  // Statements up to `{% name` for one of `ends` (left at the name), or the end of the template.
  StatusOr<ChatBlock> Block(std::initializer_list<std::string_view> ends) {
    const Nested nested(&nesting_);
    POLYAD_RETURN_IF_ERROR(CheckNesting());
    ChatBlock block;
    while (!At(Token::kEnd)) {
      if (At(Token::kBlockBegin)) {
        ++at_;
        if (AtAnyName(ends)) return block;
        POLYAD_ASSIGN_OR_RETURN(std::unique_ptr<ChatStatement> statement, TagStatement());
        block.push_back(std::move(statement));
      } else if (At(Token::kData)) {
        block.push_back(New(Stmt::kText));
        block.back()->text = Take().text;
      } else {
        block.push_back(New(Stmt::kPrint));
        ++at_;
        POLYAD_ASSIGN_OR_RETURN(ChatExprPtr expr, Expression());
        block.back()->exprs.push_back(std::move(expr));
        if (!At(Token::kVariableEnd)) return Error("expected \"}}\", got " + Describe());
        ++at_;
      }
    }
    if (ends.size() > 0) return Error("expected \"" + std::string(*ends.begin()) + "\"");
    return block;
  }

  std::unique_ptr<ChatStatement> New(Stmt kind) const {
    auto statement = std::make_unique<ChatStatement>();
    statement->kind = kind;
    statement->line = Now().line;
    return statement;
  }

  StatusOr<std::unique_ptr<ChatStatement>> TagStatement() {
    if (TakeName("for")) return For();
    if (TakeName("if")) return If();
    if (TakeName("set")) return Set();
    if (TakeName("macro")) return Macro();
    if (TakeName("generation")) return Group();
    if (AtName("break") || AtName("continue")) {
      if (loops_ == 0) return Error("break or continue outside of a loop");
      auto statement = New(Take().text == "break" ? Stmt::kBreak : Stmt::kContinue);
      POLYAD_RETURN_IF_ERROR(ExpectBlockEnd());
      return statement;
    }
    return Refuse("the tag " + Describe());
  }

  Status Body(ChatStatement* statement, std::initializer_list<std::string_view> ends) {
    POLYAD_RETURN_IF_ERROR(ExpectBlockEnd());
    POLYAD_ASSIGN_OR_RETURN(ChatBlock block, Block(ends));
    statement->blocks.push_back(std::move(block));
    return absl::OkStatus();
  }

  Status End(std::string_view name) {
    if (!TakeName(name)) return Error("expected \"" + std::string(name) + "\", got " + Describe());
    return ExpectBlockEnd();
  }

  StatusOr<std::unique_ptr<ChatStatement>> For() {
    auto statement = New(Stmt::kFor);
    do {
      POLYAD_ASSIGN_OR_RETURN(std::string name, Name());
      statement->names.push_back(std::move(name));
    } while (TakeOperator(","));
    if (!TakeName("in")) return Error("expected \"in\", got " + Describe());
    POLYAD_ASSIGN_OR_RETURN(ChatExprPtr iterable, Or());
    statement->exprs.push_back(std::move(iterable));
    if (TakeName("if")) {
      POLYAD_ASSIGN_OR_RETURN(ChatExprPtr filter, Expression());
      statement->exprs.push_back(std::move(filter));
    }
    if (AtName("recursive")) return Refuse("a recursive loop");
    ++loops_;
    POLYAD_RETURN_IF_ERROR(Body(statement.get(), {"endfor", "else"}));
    --loops_;
    if (TakeName("else")) POLYAD_RETURN_IF_ERROR(Body(statement.get(), {"endfor"}));
    POLYAD_RETURN_IF_ERROR(End("endfor"));
    return statement;
  }

  StatusOr<std::unique_ptr<ChatStatement>> If() {
    auto statement = New(Stmt::kIf);
    do {
      POLYAD_ASSIGN_OR_RETURN(ChatExprPtr condition, Expression());
      statement->exprs.push_back(std::move(condition));
      POLYAD_RETURN_IF_ERROR(Body(statement.get(), {"endif", "elif", "else"}));
    } while (TakeName("elif"));
    if (TakeName("else")) POLYAD_RETURN_IF_ERROR(Body(statement.get(), {"endif"}));
    POLYAD_RETURN_IF_ERROR(End("endif"));
    return statement;
  }

  StatusOr<std::unique_ptr<ChatStatement>> Set() {
    auto statement = New(Stmt::kSet);
    do {
      POLYAD_ASSIGN_OR_RETURN(std::string name, Name());
      if (TakeOperator(".")) {
        POLYAD_ASSIGN_OR_RETURN(const std::string attribute, Name());
        name.push_back('.');
        name.append(attribute);
      }
      statement->names.push_back(std::move(name));
    } while (TakeOperator(","));
    if (!TakeOperator("=")) {
      if (AtOperator("|")) return Refuse("a filter on a set block");
      statement->kind = Stmt::kSetBlock;
      if (statement->names.size() != 1) return Error("a set block has one name");
      POLYAD_RETURN_IF_ERROR(Body(statement.get(), {"endset"}));
      POLYAD_RETURN_IF_ERROR(End("endset"));
      return statement;
    }
    POLYAD_ASSIGN_OR_RETURN(ChatExprPtr value, Tuple());
    statement->exprs.push_back(std::move(value));
    POLYAD_RETURN_IF_ERROR(ExpectBlockEnd());
    return statement;
  }

  StatusOr<std::unique_ptr<ChatStatement>> Macro() {
    auto statement = New(Stmt::kMacro);
    POLYAD_ASSIGN_OR_RETURN(statement->text, Name());
    POLYAD_RETURN_IF_ERROR(Expect("("));
    while (!AtOperator(")")) {
      if (!statement->names.empty()) POLYAD_RETURN_IF_ERROR(Expect(","));
      if (statement->names.size() >= kMaxArgs) return Error("too many parameters");
      POLYAD_ASSIGN_OR_RETURN(std::string name, Name());
      statement->names.push_back(std::move(name));
      statement->exprs.emplace_back();
      if (TakeOperator("=")) {
        POLYAD_ASSIGN_OR_RETURN(statement->exprs.back(), Expression());
      }
    }
    ++at_;
    const int outer_loops = std::exchange(loops_, 0);
    POLYAD_RETURN_IF_ERROR(Body(statement.get(), {"endmacro"}));
    loops_ = outer_loops;
    POLYAD_RETURN_IF_ERROR(End("endmacro"));
    return statement;
  }

  // transformers' {% generation %} marks the assistant's text for training; it prints as if it were
  // not there.
  StatusOr<std::unique_ptr<ChatStatement>> Group() {
    auto statement = New(Stmt::kGroup);
    POLYAD_RETURN_IF_ERROR(Body(statement.get(), {"endgeneration"}));
    POLYAD_RETURN_IF_ERROR(End("endgeneration"));
    return statement;
  }

  // ---- expressions, loosest first, as Jinja binds them ----
  StatusOr<ChatExprPtr> Make(Expr kind, std::string name, std::vector<ChatExprPtr> children) const {
    auto expr = std::make_unique<ChatExpr>();
    expr->kind = kind;
    expr->line = Now().line;
    expr->name = std::move(name);
    expr->children = std::move(children);
    for (const ChatExprPtr& child : expr->children) {
      if (child != nullptr) expr->depth = std::max(expr->depth, child->depth + 1);
    }
    if (expr->depth > kMaxChatExprDepth) return Error("an expression over its depth");
    return expr;
  }
  StatusOr<ChatExprPtr> Make1(Expr kind, std::string name, ChatExprPtr child) const {
    std::vector<ChatExprPtr> children;
    children.push_back(std::move(child));
    return Make(kind, std::move(name), std::move(children));
  }
  StatusOr<ChatExprPtr> Make2(Expr kind, std::string name, ChatExprPtr left,
                              ChatExprPtr right) const {
    std::vector<ChatExprPtr> children;
    children.push_back(std::move(left));
    children.push_back(std::move(right));
    return Make(kind, std::move(name), std::move(children));
  }

  StatusOr<ChatExprPtr> Tuple() {
    POLYAD_ASSIGN_OR_RETURN(ChatExprPtr first, Expression());
    if (!AtOperator(",")) return first;
    std::vector<ChatExprPtr> items;
    items.push_back(std::move(first));
    while (TakeOperator(",")) {
      if (AtOperator(")") || At(Token::kBlockEnd) || At(Token::kVariableEnd)) break;
      POLYAD_ASSIGN_OR_RETURN(ChatExprPtr item, Expression());
      items.push_back(std::move(item));
    }
    return Make(Expr::kList, {}, std::move(items));
  }

  StatusOr<ChatExprPtr> Expression() {
    const Nested nested(&nesting_);
    POLYAD_RETURN_IF_ERROR(CheckNesting());
    POLYAD_ASSIGN_OR_RETURN(ChatExprPtr expr, Or());
    while (TakeName("if")) {
      std::vector<ChatExprPtr> children;
      children.push_back(std::move(expr));
      POLYAD_ASSIGN_OR_RETURN(ChatExprPtr condition, Or());
      children.push_back(std::move(condition));
      if (TakeName("else")) {
        POLYAD_ASSIGN_OR_RETURN(ChatExprPtr other, Expression());
        children.push_back(std::move(other));
      }
      POLYAD_ASSIGN_OR_RETURN(expr, Make(Expr::kCondition, {}, std::move(children)));
    }
    return expr;
  }

  StatusOr<ChatExprPtr> Or() {
    POLYAD_ASSIGN_OR_RETURN(ChatExprPtr left, And());
    while (TakeName("or")) {
      POLYAD_ASSIGN_OR_RETURN(ChatExprPtr right, And());
      POLYAD_ASSIGN_OR_RETURN(left, Make2(Expr::kBinary, "or", std::move(left), std::move(right)));
    }
    return left;
  }

  StatusOr<ChatExprPtr> And() {
    POLYAD_ASSIGN_OR_RETURN(ChatExprPtr left, Not());
    while (TakeName("and")) {
      POLYAD_ASSIGN_OR_RETURN(ChatExprPtr right, Not());
      POLYAD_ASSIGN_OR_RETURN(left, Make2(Expr::kBinary, "and", std::move(left), std::move(right)));
    }
    return left;
  }

  StatusOr<ChatExprPtr> Not() {
    if (!TakeName("not")) return Compare();
    const Nested nested(&nesting_);
    POLYAD_RETURN_IF_ERROR(CheckNesting());
    POLYAD_ASSIGN_OR_RETURN(ChatExprPtr child, Not());
    return Make1(Expr::kUnary, "not", std::move(child));
  }

  std::string TakeComparison() {
    static constexpr std::array<std::string_view, 6> kOperators = {"==", "!=", "<",
                                                                   ">",  "<=", ">="};
    for (const std::string_view op : kOperators) {
      if (TakeOperator(op)) return std::string(op);
    }
    if (TakeName("in")) return "in";
    if (AtName("not") && at_ + 1 < tokens_.size() && tokens_[at_ + 1].kind == Token::kName &&
        tokens_[at_ + 1].text == "in") {
      at_ += 2;
      return "not in";
    }
    return {};
  }

  StatusOr<ChatExprPtr> Compare() {
    POLYAD_ASSIGN_OR_RETURN(ChatExprPtr left, Sum());
    std::string op = TakeComparison();
    if (op.empty()) return left;
    POLYAD_ASSIGN_OR_RETURN(ChatExprPtr right, Sum());
    POLYAD_ASSIGN_OR_RETURN(
        left, Make2(Expr::kCompare, std::move(op), std::move(left), std::move(right)));
    if (!TakeComparison().empty()) return Refuse("a chain of comparisons");
    return left;
  }

  // A level of left-associative operators over the next tighter level.
  template <typename Next>
  StatusOr<ChatExprPtr> LeftChain(std::initializer_list<std::string_view> ops, const Next& next) {
    POLYAD_ASSIGN_OR_RETURN(ChatExprPtr left, next());
    while (true) {
      const auto* op =
          std::find_if(ops.begin(), ops.end(), [&](std::string_view o) { return AtOperator(o); });
      if (op == ops.end()) return left;
      ++at_;
      POLYAD_ASSIGN_OR_RETURN(ChatExprPtr right, next());
      POLYAD_ASSIGN_OR_RETURN(
          left, Make2(Expr::kBinary, std::string(*op), std::move(left), std::move(right)));
    }
  }
  StatusOr<ChatExprPtr> Sum() {
    return LeftChain({"+", "-"}, [&] { return Concat(); });
  }
  StatusOr<ChatExprPtr> Concat() {
    return LeftChain({"~"}, [&] { return Product(); });
  }
  StatusOr<ChatExprPtr> Product() {
    return LeftChain({"*", "//", "/", "%"}, [&] { return Power(); });
  }
  StatusOr<ChatExprPtr> Power() {
    return LeftChain({"**"}, [&] { return Unary(true); });
  }

  StatusOr<ChatExprPtr> Unary(bool with_filter) {
    ChatExprPtr expr;
    if (AtOperator("-") || AtOperator("+")) {
      const Nested nested(&nesting_);
      POLYAD_RETURN_IF_ERROR(CheckNesting());
      std::string op = Take().text;
      POLYAD_ASSIGN_OR_RETURN(ChatExprPtr child, Unary(false));
      POLYAD_ASSIGN_OR_RETURN(expr, Make1(Expr::kUnary, std::move(op), std::move(child)));
    } else {
      POLYAD_ASSIGN_OR_RETURN(expr, Primary());
    }
    POLYAD_ASSIGN_OR_RETURN(expr, Postfix(std::move(expr)));
    return with_filter ? Filters(std::move(expr)) : std::move(expr);
  }

  StatusOr<ChatExprPtr> Literal(ChatValue value) const {
    POLYAD_ASSIGN_OR_RETURN(ChatExprPtr expr, Make(Expr::kLiteral, {}, {}));
    expr->value = value;
    return expr;
  }

  StatusOr<ChatExprPtr> Primary() {
    if (At(Token::kString)) {
      std::string text;
      while (At(Token::kString)) text += Take().text;  // adjacent strings join
      return Make(Expr::kString, std::move(text), {});
    }
    if (At(Token::kInt)) return Literal(ChatValue::Int(Take().integer));
    if (At(Token::kFloat)) return Literal(ChatValue::Float(Take().number));
    if (At(Token::kName)) {
      std::string name = Take().text;
      if (name == "true" || name == "True") return Literal(ChatValue::Bool(true));
      if (name == "false" || name == "False") return Literal(ChatValue::Bool(false));
      if (name == "none" || name == "None") return Literal(ChatValue::None());
      return Make(Expr::kName, std::move(name), {});
    }
    if (TakeOperator("(")) return Parenthesis();
    if (TakeOperator("[")) return ListLiteral();
    if (TakeOperator("{")) return DictLiteral();
    return Error("expected an expression, got " + Describe());
  }

  StatusOr<ChatExprPtr> Parenthesis() {
    if (TakeOperator(")")) return Make(Expr::kList, {}, {});
    POLYAD_ASSIGN_OR_RETURN(ChatExprPtr expr, Tuple());
    POLYAD_RETURN_IF_ERROR(Expect(")"));
    return expr;
  }

  StatusOr<ChatExprPtr> ListLiteral() {
    std::vector<ChatExprPtr> items;
    while (!AtOperator("]")) {
      if (!items.empty()) POLYAD_RETURN_IF_ERROR(Expect(","));
      if (AtOperator("]")) break;
      POLYAD_ASSIGN_OR_RETURN(ChatExprPtr item, Expression());
      items.push_back(std::move(item));
    }
    ++at_;
    return Make(Expr::kList, {}, std::move(items));
  }

  StatusOr<ChatExprPtr> DictLiteral() {
    std::vector<ChatExprPtr> items;
    while (!AtOperator("}")) {
      if (!items.empty()) POLYAD_RETURN_IF_ERROR(Expect(","));
      if (AtOperator("}")) break;
      POLYAD_ASSIGN_OR_RETURN(ChatExprPtr key, Expression());
      POLYAD_RETURN_IF_ERROR(Expect(":"));
      POLYAD_ASSIGN_OR_RETURN(ChatExprPtr value, Expression());
      items.push_back(std::move(key));
      items.push_back(std::move(value));
    }
    ++at_;
    return Make(Expr::kDict, {}, std::move(items));
  }

  Status CheckAttribute(std::string_view name) const {
    if (name.find("__") == 0)
      return Error("the attribute \"" + std::string(name) + "\" is never served");
    return absl::OkStatus();
  }

  StatusOr<ChatExprPtr> Postfix(ChatExprPtr expr) {
    while (true) {
      if (TakeOperator(".")) {
        POLYAD_ASSIGN_OR_RETURN(const std::string name, Name());
        POLYAD_RETURN_IF_ERROR(CheckAttribute(name));
        POLYAD_ASSIGN_OR_RETURN(expr, Make1(Expr::kAttribute, name, std::move(expr)));
      } else if (TakeOperator("[")) {
        POLYAD_ASSIGN_OR_RETURN(expr, Subscript(std::move(expr)));
      } else if (AtOperator("(")) {
        POLYAD_ASSIGN_OR_RETURN(expr, Make1(Expr::kCall, {}, std::move(expr)));
        POLYAD_RETURN_IF_ERROR(Arguments(expr.get()));
      } else {
        return expr;
      }
    }
  }

  StatusOr<ChatExprPtr> Subscript(ChatExprPtr object) {
    std::vector<ChatExprPtr> parts;
    parts.push_back(std::move(object));
    bool is_slice = false;
    parts.emplace_back();
    while (!AtOperator("]")) {
      if (TakeOperator(":")) {
        is_slice = true;
        parts.emplace_back();
        if (parts.size() > 4) return Error("a slice has at most three parts");
        continue;
      }
      if (parts.back() != nullptr) return Error("expected \"]\", got " + Describe());
      POLYAD_ASSIGN_OR_RETURN(parts.back(), Expression());
    }
    ++at_;
    if (!is_slice && parts[1] == nullptr) return Error("an empty index");
    return Make(is_slice ? Expr::kSlice : Expr::kIndex, {}, std::move(parts));
  }

  Status Arguments(ChatExpr* call) {
    POLYAD_RETURN_IF_ERROR(Expect("("));
    bool first = true;
    while (!AtOperator(")")) {
      if (!first) POLYAD_RETURN_IF_ERROR(Expect(","));
      first = false;
      if (AtOperator(")")) break;
      if (AtOperator("*") || AtOperator("**")) return Refuse("unpacking arguments");
      if (call->args.size() + call->named_args.size() >= kMaxArgs)
        return Error("too many arguments");
      std::string name;
      if (At(Token::kName) && NextIsOperator("=")) {
        name = Take().text;
        ++at_;
      }
      POLYAD_ASSIGN_OR_RETURN(ChatExprPtr value, Expression());
      call->depth = std::max(call->depth, value->depth + 1);
      if (!name.empty()) {
        call->named_args.emplace_back(std::move(name), std::move(value));
      } else if (!call->named_args.empty()) {
        return Error("a positional argument after a named one");
      } else {
        call->args.push_back(std::move(value));
      }
    }
    ++at_;
    return call->depth > kMaxChatExprDepth ? Error("an expression over its depth")
                                           : absl::OkStatus();
  }

  StatusOr<ChatExprPtr> Filters(ChatExprPtr expr) {
    while (true) {
      if (TakeOperator("|")) {
        POLYAD_ASSIGN_OR_RETURN(std::string name, Name());
        if (!IsChatFilter(name)) return Refuse("the filter " + name.substr(0, 40));
        POLYAD_ASSIGN_OR_RETURN(expr, Make1(Expr::kFilter, std::move(name), std::move(expr)));
        if (AtOperator("(")) POLYAD_RETURN_IF_ERROR(Arguments(expr.get()));
      } else if (TakeName("is")) {
        const bool negated = TakeName("not");
        POLYAD_ASSIGN_OR_RETURN(std::string name, Name());
        if (!IsChatTest(name)) return Refuse("the test " + name.substr(0, 40));
        POLYAD_ASSIGN_OR_RETURN(expr, Make1(Expr::kTest, std::move(name), std::move(expr)));
        expr->negated = negated;
        POLYAD_RETURN_IF_ERROR(TestArguments(expr.get()));
      } else {
        return expr;
      }
    }
  }

  // `is divisibleby 3`: one argument may stand without brackets.
  Status TestArguments(ChatExpr* test) {
    if (AtOperator("(")) return Arguments(test);
    const bool is_value = At(Token::kString) || At(Token::kInt) || At(Token::kFloat) ||
                          AtOperator("[") || AtOperator("{") ||
                          (At(Token::kName) &&
                           !AtAnyName({"else", "or", "and", "if", "is", "in", "not", "recursive"}));
    if (!is_value) return absl::OkStatus();
    POLYAD_ASSIGN_OR_RETURN(ChatExprPtr value, Primary());
    POLYAD_ASSIGN_OR_RETURN(value, Postfix(std::move(value)));
    test->depth = std::max(test->depth, value->depth + 1);
    test->args.push_back(std::move(value));
    return test->depth > kMaxChatExprDepth ? Error("an expression over its depth")
                                           : absl::OkStatus();
  }

  std::vector<ChatToken> tokens_;
  size_t at_ = 0;
  int nesting_ = 0;
  int loops_ = 0;
};

}  // namespace

StatusOr<ChatBlock> ParseChatTemplate(std::string_view source) {
  POLYAD_ASSIGN_OR_RETURN(std::vector<ChatToken> tokens, LexChatTemplate(source));
  return Parser(std::move(tokens)).Template();
}

}  // namespace polyad
