#include "text/story_words.h"

namespace sparsam {
namespace {

StoryWords make_words() {
  return {
      .names =
          Table(3,
                "Anna She she, Mia She she, Clara She she, Emma She she, Lina She she, Nora She she, Rosa She she,"
                "Sofia She she, Ida She she, Julia She she, Lucy She she, Marta She she, Vera She she, Zoe She she,"
                "Alice She she, Greta She she, Tom He he, Ben He he, Felix He he, Jonas He he, Leo He he,"
                "Max He he, Oscar He he, Paul He he, Simon He he, Victor He he, Walter He he, Hugo He he,"
                "Karl He he, Emil He he, David He he, Peter He he"),
      .openings = Table(1,
                        "One morning, One day, On Sunday, Long ago, In spring, After breakfast, On a sunny day,"
                        "On a cold day, Early in the autumn, Late in the summer, Before the rain, During the holidays"),
      .travels = Table(1, "walk, run, ride, hurry, wander, sail, travel, march"),
      .places = Table(1,
                      "garden, river, market, village, forest, castle, harbour, bridge, school, mill, meadow, station,"
                      "temple, valley, library, museum, bakery, lake, beach, tavern, stable, vineyard, cellar, palace"),
      .colours = Table(1,
                       "red, blue, green, white, black, yellow, brown, golden, silver, purple, wooden, tiny, huge,"
                       "round, heavy, broken"),
      .things = Table(1,
                      "ball, kite, book, drum, lamp, box, hat, bell, key, knife, rope, basket, bucket, candle, mirror,"
                      "flute, violin, wagon, boat, mask, coat, scarf, ring, map, puzzle, hammer, ladder, bottle,"
                      "pencil, trumpet, clock, blanket"),
      .fruits = Table(2,
                      "apple apples, pear pears, plum plums, cherry cherries, nut nuts, peach peaches, fig figs,"
                      "berry berries, lemon lemons, melon melons, orange oranges, carrot carrots"),
      .numbers = Table(1, "one, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve"),
      .connectors = Table(1, "Then, Soon, Later, Suddenly, After a while, Meanwhile"),
      .animals =
          Table(4,
                "dog dogs barks bark, cat cats meows meow, lion lions roars roar, bird birds chirps chirp,"
                "frog frogs croaks croak, horse horses neighs neigh, cow cows moos moo, duck ducks quacks quack,"
                "bee bees buzzes buzz, wolf wolves howls howl, mouse mice squeaks squeak, goose geese honks honk,"
                "snake snakes hisses hiss, pig pigs grunts grunt, bear bears growls growl,"
                "donkey donkeys brays bray, pigeon pigeons coos coo, turkey turkeys gobbles gobble,"
                "rooster roosters crows crow, hen hens clucks cluck, lamb lambs bleats bleat,"
                "hyena hyenas cackles cackle, fox foxes yelps yelp, cricket crickets trills trill"),
      .qualities = Table(1,
                         "old, young, hungry, lazy, clever, gentle, noisy, spotted, shy, grey, fat, thin, wild,"
                         "friendly, wet, quick"),
      .scenery = Table(2,
                       "tree trees, rock rocks, fence fences, house houses, bush bushes, barn barns, hill hills,"
                       "well wells, tower towers, flower flowers, pond ponds, stump stumps, gate gates, cart carts,"
                       "ditch ditches, statue statues"),
      .relations = Table(1, "near, behind, beside, under, above, below"),
      .deeds = Table(2,
                     "sleeps sleep, jumps jump, rests rest, hides hide, plays play, dances dance, waits wait,"
                     "sneezes sneeze, sings sing, laughs laugh, swims swim, yawns yawn, smiles smile, trembles tremble,"
                     "stumbles stumble, dreams dream, listens listen, turns turn"),
      .regards = Table(2,
                       "sees see, follows follow, likes like, fears fear, hears hear, knows know, watches watch,"
                       "loves love, smells smell, hates hate, chases chase, greets greet"),
      .manners = Table(1,
                       "quietly, loudly, happily, slowly, quickly, again, together, today, bravely, calmly, sadly,"
                       "outside, alone, proudly, twice, forever"),
      .moods = Table(1,
                     "happy, sad, tired, brave, proud, cold, warm, calm, angry, lonely, curious, sleepy, strong, lucky,"
                     "bored, thirsty"),
      .marks = Table(1, "sun, moon, star, fire, water, stone, wind, snow"),
      .brackets = Table(2, "( ), [ ], { }, < >"),
  };
}

}  // namespace

const StoryWords& story_words() {
  static const StoryWords words = make_words();
  return words;
}

}  // namespace sparsam
