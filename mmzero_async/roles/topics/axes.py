"""The axes of seed topics, as plain lists. A change here is another topic for every seed, also for
those in old events: only add a whole new axis with a new set of templates."""


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.strip().splitlines())


def _listed(text: str) -> tuple[str, ...]:
    return tuple(" ".join(item.split()) for item in text.split(";"))


_FORMS = {
    "data_chart": """a grouped bar chart; a stacked bar chart; a diverging bar chart; a dot plot;
        a line chart with crossing series; a stepped line chart; an area chart; a slope chart;
        a scatter plot with a trend line; a bubble chart; a histogram; a box plot; a heatmap;
        a radar chart; a ring chart; a waterfall chart; a population pyramid; a bullet chart""",
    "diagram": """a flowchart with decisions; a state machine; a labelled cross-section;
        a network of weighted links; a Venn diagram of three sets; an organisation tree;
        a pipe and valve schematic; an electric circuit; a balance of levers and weights""",
    "geometry": """a construction with triangles; a figure of circles and tangents;
        nested polygons; a solid drawn in projection; a tiling; angles at parallel lines;
        a figure on a coordinate grid""",
    "timeline": """a Gantt chart; a timeline with overlapping periods; a shift roster by the hour;
        a sequence of dated events; a tide and light calendar""",
    "map": """a transit map; a floor plan; a contour map; a plan of gardens and paths;
        a sea chart with depths""",
    "table": """a table with row totals; a results table of a round robin; a departure board;
        a price matrix""",
}
FORMS = tuple((kind, form) for kind, forms in _FORMS.items() for form in _listed(forms))

RELATIONS = {
    "data_chart": _lines("""
        the gap between two sums
        the point at which one series overtakes another
        the largest change between neighbours
        a share of a total
        how many items lie above an average
        the median of one group
        a ratio of two extremes
        what is left when the outlier is taken out
        the rank of an item in another series
        the second largest difference between two series
        a rate read off a slope and carried on
        items that satisfy two conditions at once"""),
    "diagram": _lines("""
        the number of ways from one end to the other
        the cheapest route by its labels
        what a removed part cuts off
        the outcome of a run with given inputs
        the longest chain of dependencies
        a total along one branch
        which parts are shared by two groups
        the order in which parts are reached
        a quantity that must balance at a junction
        how many nodes have more than two links
        the deepest level and its members
        the difference between two routes"""),
    "geometry": _lines("""
        an angle that follows from two others
        an area as a difference of two areas
        a length by similar triangles
        a perimeter of a combined figure
        a ratio of two areas
        the number of congruent parts
        a length by a right angle
        an angle at the centre and one at the rim
        a distance between two named points
        a missing side from a given total
        which of two figures is larger, and by how much
        a symmetry and what it maps to what"""),
    "timeline": _lines("""
        the longest time without any activity
        how many periods overlap at one moment
        the time between two events of different rows
        the earliest end when one step is late
        the total length of one group
        the order of two events that are drawn apart
        the share of the whole that is double booked
        the shortest pause between neighbours
        what runs at the moment when something else ends
        the mean length of the marked periods
        how many events fall between two others
        the last start that still meets a deadline"""),
    "map": _lines("""
        the shortest way under a condition
        the number of changes on a way
        a distance by the scale
        which places lie within a radius
        the difference of two heights or depths
        what lies on the way between two places
        the area of the marked parts
        the direction from one place to another
        how many parts border on one part
        two ways compared
        places that share two properties
        the detour when one link is closed"""),
    "table": _lines("""
        a missing entry that follows from a total
        the difference of two row sums
        how many rows satisfy two conditions
        the best row by a derived value
        the column with the widest range
        a share of the grand total
        the rank after one entry changes
        the entry nearest to the mean of its column
        a value looked up by way of another
        the pair of rows with the largest gap
        the sum along the marked cells
        which of two totals is larger, and by how much"""),
}

DOMAINS = _listed("""
    bell foundries; lighthouse lamps; beehive weights; peat bogs; tram brakes; glacier tongues;
    orchard grafts; sundial makers; ferry crossings; clay kilns; seed vaults; kite festivals;
    lock gates; owl nests; salt pans; cheese caves; telescope mirrors; hedge mazes; mail pigeons;
    bridge cables; ink recipes; coral nurseries; chess openings; canal barges; snow fences;
    violin strings; truffle dogs; wind tunnels; paper mills; fog signals; parade floats;
    stamp errors; weather balloons; tunnel boring; puppet theatres; tide pools; rope walks;
    library returns; eel ladders; ski lifts; cloud chambers; mosaic floors; bicycle gears;
    hot springs; origami folds; tea terraces; satellite passes; marathon pacing; moth traps;
    bread starters; cave surveys; clock escapements; water clocks; night buses; radio dishes;
    toll booths; lava flows; wool dyes; rowing crews; seismographs; fish ladders; carousel horses;
    pollen counts; sand dunes; elevator trips; escape rooms; harp tunings; ice cores; jam cellars;
    kelp forests; lantern parades; mine shafts; nut harvests; oyster beds; pump stations; quarry
    blasts; robot vacuums; sail repairs; train couplings; umbrella repairs; vending machines;
    well depths; xylophone bars; yarn shops; zip lines; acorn caches; barn roofs; candle moulds;
    dam spillways; echo soundings; fern gametes; goat trails; hail reports; island ferries;
    juggling patterns; kayak portages; loom patterns; meteor showers; needle gauges; opera seating;
    planetarium shows; quilt blocks; rain gauges; spice caravans; tower cranes; urban foxes;
    vine pruning; whale songs; yeast strains; archive boxes; bakery ovens; crossword grids;
    drone deliveries; elm surveys; fountain pumps; greenhouse vents; hydrant checks; irrigation
    gates; jet lag studies; knot strength; lift queues; moss gardens; night markets; observatory
    domes; pottery glazes; recycling bales; shadow lengths; turtle tracks
""")

SETTINGS = _listed("""
    in a mountain village; on a river delta; in a port at night; on a research vessel; in a school
    yard; in an old mill town; on a space station; in a desert camp; on an archipelago; in a
    botanical garden; in a covered market; at a polar station; in a railway depot; on a high
    plateau; in a museum cellar; in a valley with two dams; during a week of storms; over one
    leap year; during a three day festival; before and after a repair; across four generations;
    between two equinoxes; in the first hour after opening; over a season with a drought; as an
    apprentice recorded it; as two rival clubs report it; as seen from above; at the turn of a
    century; in units that are told in a legend; with one entry under dispute; at three altitudes;
    on both banks of a canal
""")

TWISTS = _listed("""
    with one outlier that is called out; with an inset that enlarges a part; with a threshold line;
    with a reversal half way; with a highlighted region; with arrows between related parts;
    with two scales that differ; with a gap where data is missing; with a running total;
    with a legend that must be used; with a tie between two items; with an annotation that gives
    a rule; with a part drawn dashed as a forecast; with a repeated motif that breaks once;
    with subtotals for two groups; with a marker shape that carries a meaning
""")

DIFFICULTIES = (
    "two steps",
    "three steps",
    "three steps, one of them a comparison",
    "four steps",
)

SIZES = (
    "three elements",
    "four elements",
    "five elements",
    "six elements",
    "seven elements",
    "eight or nine elements",
    "ten to twelve elements",
    "two groups of four elements",
)

COLOURS = (
    "in two named colours",
    "in three named colours",
    "in four named colours",
    "in shades of one colour",
    "in grey with one coloured part",
    "in black lines with hatching",
    "in warm against cold colours",
    "in one colour with different line styles",
)
