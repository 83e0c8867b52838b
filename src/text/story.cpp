#include "text/story.h"

#include "base/error.h"
#include "text/story_words.h"

namespace sparsam {
namespace {

// Parts that do not depend on the state (Walk::scope).
enum Scope { animal_sentence, animal_seen, animal_in_quotes, sign };  // the last one: sign + depth of the brackets

constexpr int fewest_events = 3, most_events = 7, deepest_bracket = 3, most_marks = 4;

enum Number { singular = 0, plural = 1 };  // columns of nouns and verbs

struct Animal {
  int row;
  Number number;
};

// "dog", "old dogs". Chosen after "the".
Animal write_animal(Walk& walk) {
  const StoryWords& words = story_words();
  enum { quality = 2 };
  const auto nouns = [&] {
    return std::vector<Alternative>{draw(singular, 1, words.animals, 0), draw(plural, 1, words.animals, 1)};
  };
  std::vector<Alternative> first = nouns();
  first.push_back(draw(quality, 2, words.qualities, 0));
  Chosen chosen = walk.choose(first);
  if (chosen.id == quality) chosen = walk.choose(nouns());
  return {chosen.row, static_cast<Number>(chosen.id)};
}

// " near the houses", " that the cat sees", then the verb that agrees with the animal, however far it stands.
void write_animal_predicate(Walk& walk, Animal animal) {
  const StoryWords& words = story_words();
  enum { relation, clause, sound, deed };
  std::vector<Alternative> choices = {draw(relation, 1.2, words.relations, 0), text(clause, 1, " that the"),
                                      word(sound, 0.8, words.animals, animal.row, 2 + animal.number),
                                      draw(deed, 0.8, words.deeds, animal.number)};
  int chosen = walk.choose(choices).id;
  if (chosen == relation) {
    walk.write(" the");
    walk.choose({draw(singular, 1, words.scenery, singular), draw(plural, 1, words.scenery, plural)});
    choices.erase(choices.begin());
    chosen = walk.choose(choices).id;
  }
  if (chosen == clause) {
    const Animal other = write_animal(walk);
    walk.choose({draw(0, 1, words.regards, other.number)});
    walk.choose({choices.end()[-2], choices.end()[-1]});
  }
  enum { stop, manner };
  if (walk.choose({text(stop, 1, "."), draw(manner, 1.5, words.manners, 0)}).id == manner) walk.write(".");
}

// The rest of a bracket: up to four words or brackets, then its closing half.
void write_bracket(Walk& walk, int bracket, int depth) {
  const StoryWords& words = story_words();
  enum { mark, open, close };
  for (int items = 0; items < most_marks; ++items) {
    std::vector<Alternative> choices = {draw(mark, 2, words.marks, 0)};
    if (depth < deepest_bracket) choices.push_back(draw(open, 1, words.brackets, 0));
    if (items > 0) choices.push_back(word(close, 1.5, words.brackets, bracket, 1));
    const Chosen chosen = walk.choose(choices);
    if (chosen.id == close) return;
    if (chosen.id == open)
      walk.scope(sign + depth + 1, [&](Walk& inner) { write_bracket(inner, chosen.row, depth + 1); });
  }
  walk.write(words.brackets.cell(bracket, 1));
}

class Teller {
 public:
  Teller(Walk& walk, StoryState& state) : walk_(walk), s_(state) {}

  void opening() {
    enum { two = 2, three = 3 };
    walk_.choose({draw(0, 1, words_.openings, 0)});
    s_.name[0] = walk_.choose({draw(0, 1, words_.names, 0)}).row;
    s_.people = walk_.choose({text(two, 1, " and"), text(three, 1, ",")}).id;
    s_.name[1] = walk_.choose({draw(0, 1, words_.names, 0, {s_.name[0]})}).row;
    if (s_.people == three) {
      walk_.write(" and");
      s_.name[2] = walk_.choose({draw(0, 1, words_.names, 0, {s_.name[0], s_.name[1]})}).row;
    }
    walk_.choose({draw(0, 1, words_.travels, 0)});
    walk_.write(" to the");
    walk_.choose({draw(0, 1, words_.places, 0)});
    walk_.write(".");
    for (int i = 0; i < StoryState::things; ++i) {
      name(i);
      walk_.write(" has a");
      s_.colour[i] = walk_.choose({draw(0, 1, words_.colours, 0, drawn_before(s_.colour, i))}).row;
      s_.thing[i] = walk_.choose({draw(0, 1, words_.things, 0, drawn_before(s_.thing, i))}).row;
      walk_.write(i == 0 ? " and" : ".");
    }
    s_.fruit_owner = s_.people == three ? 2 : walk_.choose({person(0), person(1)}).id;
    if (s_.people == three) name(2);
    walk_.write(s_.people == three ? " has" : " also has");
    s_.fruits = 2 + walk_.choose({number(0, 2), number(1, 3), number(2, 4), number(3, 5)}).id;
    s_.fruit = walk_.choose({draw(0, 1, words_.fruits, plural)}).row;
    walk_.write(".");
    s_.phase = StoryState::Phase::events;
  }

  void event() {
    enum { first_person, pronoun = StoryState::most_people, animal, quote, brackets, connector, end };
    std::vector<Alternative> choices;
    if (s_.events < most_events) {
      for (int p = 0; p < s_.people; ++p) choices.push_back(person(p));
      if (s_.last >= 0) choices.push_back(word(pronoun, 1.5, words_.names, s_.name[s_.last], 1));
      choices.insert(choices.end(), {text(animal, 3, " The"), text(quote, 0.8, " \""),
                                     text(brackets, 0.5, " A sign says:"), draw(connector, 2, words_.connectors, 0)});
    }
    if (s_.events >= fewest_events) choices.push_back(text(end, 1.2, " In the evening,"));
    int chosen = walk_.choose(choices).id;
    if (chosen == end) return ending();
    ++s_.events;
    if (chosen == connector) {
      choices.clear();
      for (int p = 0; p < s_.people; ++p) choices.push_back(person(p));
      if (s_.last >= 0) choices.push_back(word(pronoun, 1.5, words_.names, s_.name[s_.last], 2));
      choices.push_back(text(animal, 1.5, " the"));
      chosen = walk_.choose(choices).id;
    }
    if (chosen == animal)
      walk_.scope(animal_sentence, [](Walk& walk) { write_animal_predicate(walk, write_animal(walk)); });
    else if (chosen == quote)
      dialogue();
    else if (chosen == brackets)
      read_sign();
    else
      act(s_.last = chosen == pronoun ? s_.last : chosen);
  }

 private:
  template <size_t n>
  static std::vector<int> drawn_before(const std::array<int, n>& rows, int count) {
    return {rows.begin(), rows.begin() + count};
  }
  Alternative person(int p) const { return word(p, 1, words_.names, s_.name[p], 0); }
  Alternative number(int id, int n) const { return word(id, 1, words_.numbers, n - 1, 0); }
  void name(int p) { walk_.write(words_.names.cell(s_.name[p], 0)); }
  void count(int n) { walk_.write(words_.numbers.cell(n - 1, 0)); }
  void fruits(Number form) { walk_.write(words_.fruits.cell(s_.fruit, form)); }
  void thing(int t) {
    walk_.write(words_.colours.cell(s_.colour[t], 0));
    walk_.write(words_.things.cell(s_.thing[t], 0));
  }
  // Chooses among the things that `held` by p are (or are not) and writes colour and noun.
  int choose_thing(int p, bool held) {
    std::vector<Alternative> choices;
    for (int t = 0; t < StoryState::things; ++t)
      if ((s_.holder[t] == p) == held) choices.push_back(word(t, 1, words_.colours, s_.colour[t], 0));
    const int t = walk_.choose(choices).id;
    walk_.write(words_.things.cell(s_.thing[t], 0));
    return t;
  }
  int choose_other(int p) {
    std::vector<Alternative> choices;
    for (int other = 0; other < s_.people; ++other)
      if (other != p) choices.push_back(person(other));
    return walk_.choose(choices).id;
  }

  void act(int p) {
    enum { gives, takes, seeks, finds, eats, counts, feels, goes, sees, says, does };
    std::vector<Alternative> choices = {text(feels, 1.2, " feels"), text(goes, 1.5, " goes to the"),
                                        text(sees, 1.2, " sees the"), text(says, 1, " says: \""),
                                        draw(does, 1.5, words_.deeds, singular)};
    int held = 0;
    for (int holder : s_.holder) held += holder == p;
    if (held > 0) choices.push_back(text(gives, 1.5, " gives the"));
    if (held < StoryState::things)
      choices.insert(choices.end(), {text(takes, 0.8, " takes the"), text(seeks, 1, " looks for the")});
    if (s_.fruit_owner == p) {
      if (s_.fruits + 3 <= StoryState::most_fruits) choices.push_back(text(finds, 1.2, " finds"));
      if (s_.fruits > 1) choices.push_back(text(eats, 1.2, " eats"));
      choices.push_back(text(counts, 1.2, " counts the"));
    }
    switch (const Chosen chosen = walk_.choose(choices); chosen.id) {
      case gives:
        return give(p);
      case takes:
        return take(p);
      case seeks:
        return seek(p);
      case finds:
        return find();
      case eats:
        return eat();
      case counts:
        return count_fruits();
      case says:
        return quote(p, 1);
      case feels:
        return feel();
      case goes:
        walk_.choose({draw(0, 1, words_.places, 0)});
        break;
      case sees:
        return walk_.scope(animal_seen, [](Walk& walk) {
          const StoryWords& words = story_words();
          const Animal animal = write_animal(walk);
          walk.write(". The");
          walk.write(words.animals.cell(animal.row, animal.number));
          write_animal_predicate(walk, animal);
        });
      default:
        break;
    }
    enum { stop, manner };
    if (walk_.choose({text(stop, 1, "."), draw(manner, 1.5, words_.manners, 0)}).id == manner) walk_.write(".");
  }

  void feel() {
    enum { stop, because };
    walk_.choose({draw(0, 1, words_.moods, 0)});
    if (walk_.choose({text(stop, 1, "."), text(because, 1, " because the")}).id == because)
      walk_.scope(animal_sentence, [](Walk& walk) { write_animal_predicate(walk, write_animal(walk)); });
  }
  void give(int p) {
    const int t = choose_thing(p, true);
    walk_.write(" to");
    s_.holder[t] = choose_other(p);
    walk_.write(".");
  }
  void take(int p) {
    const int t = choose_thing(p, false);
    walk_.write(" from");
    name(s_.holder[t]);
    walk_.write(".");
    s_.holder[t] = p;
  }
  void seek(int p) {
    const int t = choose_thing(p, false);
    walk_.write(", but");
    name(s_.holder[t]);
    walk_.write(" has it.");
  }
  void find() {
    const int more = walk_.choose({number(1, 1), number(2, 2), number(3, 3)}).id;
    walk_.write(" more");
    fruits(more == 1 ? singular : plural);
    walk_.write(" and now has");
    count(s_.fruits += more);
    walk_.write(".");
  }
  void eat() {
    std::vector<Alternative> choices;
    for (int n = 1; n <= 3 && n < s_.fruits; ++n) choices.push_back(number(n, n));
    s_.fruits -= walk_.choose(choices).id;
    walk_.write(" of the");
    fruits(plural);
    walk_.write(", so");
    count(s_.fruits);
    walk_.write(s_.fruits == 1 ? " is left." : " are left.");
  }
  void count_fruits() {
    fruits(s_.fruits == 1 ? singular : plural);
    walk_.write(":");
    for (int n = 1; n <= s_.fruits; ++n) {
      count(n);
      walk_.write(n < s_.fruits ? "," : ".");
    }
  }

  // What p says, inside quotes that alternate with the depth: He says: "Anna told me: 'The dog sleeps.'"
  void quote(int p, int depth) {
    enum { told, animal };
    constexpr int deepest = 3;
    std::vector<Alternative> choices = {text(animal, 1, "The")};
    if (depth < deepest) choices.push_back(text(told, 1, depth % 2 == 1 ? "Listen! '" : "Listen! \""));
    if (walk_.choose(choices).id == told)
      quote(p, depth + 1);
    else
      walk_.scope(animal_in_quotes, [](Walk& walk) { write_animal_predicate(walk, write_animal(walk)); });
    walk_.write(depth % 2 == 1 ? "\"" : "'");
  }

  // "Where is the red ball?" asks Tom. "I have it," says Anna.
  void dialogue() {
    enum { where, how_many };
    const bool about_thing = walk_.choose({text(where, 2, "Where is the"), text(how_many, 1, "How many")}).id == where;
    int answerer = s_.fruit_owner;
    if (about_thing) {
      std::vector<Alternative> choices;
      for (int t = 0; t < StoryState::things; ++t) choices.push_back(word(t, 1, words_.colours, s_.colour[t], 0));
      const int t = walk_.choose(choices).id;
      walk_.write(words_.things.cell(s_.thing[t], 0));
      answerer = s_.holder[t];
    } else {
      fruits(plural);
      walk_.write(" do you have");
    }
    walk_.write("?\" asks");
    choose_other(answerer);
    walk_.write(". \"I have");
    if (about_thing)
      walk_.write(" it");
    else
      count(s_.fruits);
    walk_.write(",\" says");
    name(answerer);
    walk_.write(".");
    s_.last = answerer;
  }

  void read_sign() {
    walk_.scope(sign, [](Walk& walk) {
      const int bracket = walk.choose({draw(0, 1, story_words().brackets, 0)}).row;
      write_bracket(walk, bracket, 1);
      walk.write(".");
    });
  }

  // All that was to be remembered, once more: not a single bit.
  void ending() {
    for (int p = 0; p < s_.people; ++p) {
      name(p);
      walk_.write(" has");
      bool nothing = true;
      for (int t = 0; t < StoryState::things; ++t) {
        if (s_.holder[t] != p) continue;
        walk_.write(nothing ? " the" : " and the");
        thing(t);
        nothing = false;
      }
      if (s_.fruit_owner == p) {
        if (!nothing) walk_.write(" and");
        count(s_.fruits);
        fruits(s_.fruits == 1 ? singular : plural);
        nothing = false;
      }
      walk_.write(nothing ? " nothing" : "");
      walk_.write(p + 1 < s_.people ? ";" : ".");
    }
    s_.phase = StoryState::Phase::over;
  }

  Walk& walk_;
  StoryState& s_;
  const StoryWords& words_ = story_words();
};

}  // namespace

bool tell(Walk& walk, StoryState& state) {
  if (state.phase == StoryState::Phase::over) return false;
  Teller teller(walk, state);
  state.phase == StoryState::Phase::opening ? teller.opening() : teller.event();
  return true;
}

}  // namespace sparsam
