"""Plotting programs as a sound coder writes them; every one must become a picture."""

PLT = "import matplotlib.pyplot as plt\n"
BOTH = PLT + "import numpy as np\n"

HONEST = {
    "bars with labels": PLT
    + """
labels = ["A", "B", "C", "D"]
values = [3, 7, 5, 9]
fig, ax = plt.subplots(figsize=(8, 6))
bars = ax.bar(labels, values, color=["tab:blue", "#ff7f0e", "green", "r"], edgecolor="black")
ax.bar_label(bars, fmt="%d", padding=3)
ax.set_title("Sales by region", fontsize=16, fontweight="bold")
ax.set_xlabel("Region")
ax.set_ylabel("Units")
ax.set_ylim(0, 11)
for spine in ["top", "right"]:
    ax.spines[spine].set_visible(False)
plt.tight_layout()
plt.savefig("chart.png", dpi=150)
plt.show()
""",
    "lines and a legend": BOTH
    + """
x = np.linspace(0, 2 * np.pi, 200)
plt.figure(figsize=(8, 5))
plt.plot(x, np.sin(x), label=r"$\\sin(x)$", linewidth=2)
plt.plot(x, np.cos(x), "--", label=r"$\\frac{d}{dx}\\sin(x)$")
plt.axhline(0, color="gray", lw=0.8)
plt.xticks([0, np.pi, 2 * np.pi], ["0", r"$\\pi$", r"$2\\pi$"])
plt.legend(loc="upper right")
plt.grid(True, alpha=0.3)
""",
    "a pie": PLT
    + """
sizes = {"Rent": 40, "Food": 25, "Fun": 15, "Rest": 20}
fig, ax = plt.subplots()
ax.pie(list(sizes.values()), labels=list(sizes.keys()), autopct="%1.0f%%", startangle=90,
       explode=[0, 0.1, 0, 0], wedgeprops={"edgecolor": "white"})
ax.axis("equal")
""",
    "scattered, with a colour bar": BOTH
    + """
rng = np.random.default_rng(7)
x, y = rng.normal(size=60), rng.normal(size=60)
points = plt.scatter(x, y, c=x + y, s=60, cmap="viridis", marker="o", alpha=0.8)
plt.colorbar(points, label="sum")
""",
    "chance without a seed": BOTH
    + """
values = np.random.normal(50, 10, 400)
other = np.random.default_rng().uniform(20, 80, 100)
plt.hist([values, other], bins=12, density=True, label=["a", "b"])
plt.legend()
""",
    "a heat map with numbers": BOTH
    + """
grid = np.arange(12).reshape(3, 4)
fig, ax = plt.subplots()
image = ax.imshow(grid, cmap=plt.cm.Blues)
for i in range(grid.shape[0]):
    for j in range(grid.shape[1]):
        ax.text(j, i, f"{grid[i, j]:.0f}", ha="center", va="center", color="w" if i else "k")
fig.colorbar(image)
""",
    "a table": PLT
    + """
fig, ax = plt.subplots()
ax.axis("off")
table = ax.table(cellText=[["1", "2"], ["3", "4"]], colLabels=["x", "y"], loc="center")
table.auto_set_font_size(False)
table.set_fontsize(14)
table.scale(1, 2)
table[0, 1].set_facecolor("#dddddd")
""",
    "geometry": PLT
    + """
from math import cos, sin, pi
fig, ax = plt.subplots(figsize=(6, 6))
ax.add_patch(plt.Circle((0, 0), 3, fill=False, color="navy"))
ax.add_patch(plt.Rectangle((-1, -1), 2, 2, angle=30, facecolor="orange"))
corners = [(3 * cos(2 * pi * k / 5), 3 * sin(2 * pi * k / 5)) for k in range(5)]
ax.add_patch(plt.Polygon(corners, closed=True, fill=False))
for name, (x, y) in zip("ABCDE", corners):
    ax.annotate(name, (x, y), textcoords="offset points", xytext=(5, 5))
ax.annotate("r = 3", xy=(3, 0), xytext=(1, 2), arrowprops=dict(arrowstyle="->"))
ax.set_xlim(-4, 4)
ax.set_ylim(-4, 4)
ax.set_aspect("equal")
""",
    "boxes and violins": BOTH
    + """
np.random.seed(3)
data = [np.random.normal(0, s, 80) for s in range(1, 4)]
fig, (left, right) = plt.subplots(1, 2, sharey=True)
left.boxplot(data, patch_artist=True)
right.violinplot(data, showmedians=True)
fig.suptitle("Spread")
""",
    "polar": BOTH
    + """
theta = np.linspace(0, 2 * np.pi, 9)
ax = plt.subplot(projection="polar")
ax.fill(theta, [1, 3, 2, 4, 3, 5, 2, 3, 1], alpha=0.4)
ax.set_rmax(6)
""",
    "in three dimensions": BOTH
    + """
fig = plt.figure()
ax = fig.add_subplot(111, projection="3d")
x, y = np.meshgrid(np.linspace(-2, 2, 20), np.linspace(-2, 2, 20))
ax.plot_surface(x, y, np.exp(-x**2 - y**2), cmap="coolwarm")
ax.view_init(elev=30, azim=45)
""",
    "contours": BOTH
    + """
x, y = np.meshgrid(np.linspace(-3, 3, 60), np.linspace(-3, 3, 60))
lines = plt.contour(x, y, x**2 - y**2, levels=8)
plt.clabel(lines, inline=True, fontsize=8)
plt.contourf(x, y, np.hypot(x, y), alpha=0.3)
""",
    "streams and arrows": BOTH
    + """
y, x = np.mgrid[-2:2:12j, -2:2:12j]
fig, axes = plt.subplots(2, 1, layout="constrained")
axes[0].streamplot(x, y, -y, x, density=0.6)
axes[1].quiver(x, y, -y, x)
""",
    "two scales and error bars": BOTH
    + """
fig, ax = plt.subplots()
ax.errorbar([1, 2, 3], [10, 20, 15], yerr=[1, 2, 1], fmt="o-", capsize=4)
other = ax.twinx()
other.semilogy([1, 2, 3], [1, 100, 1000], "r^")
ax.fill_between([1, 2, 3], [9, 18, 14], [11, 22, 16], alpha=0.2)
ax.xaxis.set_major_locator(plt.MultipleLocator(1))
""",
    "stacked areas and steps": BOTH
    + """
years = list(range(2015, 2021))
fig, (top, bottom) = plt.subplots(2, 1, figsize=(6, 8))
top.stackplot(years, np.ones(6), np.arange(6), labels=["x", "y"], colors=["c", "m"])
top.legend(loc="upper left")
bottom.step(years, np.cumsum(years), where="mid")
bottom.tick_params(axis="x", rotation=45)
fig.subplots_adjust(hspace=0.4)
""",
    "settings and a style": PLT
    + """
plt.style.use("ggplot")
plt.rcParams["font.size"] = 14
plt.rcParams.update({"axes.titlesize": 18, "figure.figsize": (7, 7)})
plt.rc("lines", linewidth=3)
plt.plot([1, 3, 2], marker="s")
plt.title("Résumé — größer ≥ 3 µm")
""",
    "with functions": BOTH
    + """
def curve(x, power=2, *, shift=0.0):
    return np.abs(x) ** power + shift

def main():
    x = np.linspace(-1, 1, 50)
    fig, ax = plt.subplots()
    for power in (1, 2, 3):
        ax.plot(x, curve(x, power, shift=power / 10), label="p={}".format(power))
    best = max((curve(v), v) for v in [0.1, -0.5])
    print("best", best)
    ax.legend(title="power")
    return fig

if __name__ == "__main__":
    main()
""",
    "numbers in many forms": PLT
    + """
total = sum(v * w for v, w in {3: 4, 5: 6}.items())
words = ["%s: %.1f" % (k, v) for k, v in sorted({"a": 1, "b": 2.5}.items())]
text = ", ".join(word.upper() for word in words) + f" = {total:>6.2f}"
i = 0
while i < 3:
    i += 1
    if i == 2:
        continue
plt.figtext(0.1, 0.5, text if i else "", fontsize=12, family="serif")
plt.figtext(0.1, 0.3, "mono", family="monospace", style="italic", weight="bold")
""",
    "a grid of plots": BOTH
    + """
fig, axes = plt.subplots(2, 2, figsize=(8, 8), constrained_layout=True)
for number, ax in enumerate(axes.flat, start=1):
    ax.barh(range(number), np.arange(number) + 1, hatch="//")
    ax.set_title(f"Panel {number}")
axes[1, 1].hexbin(np.random.randn(200), np.random.randn(200), gridsize=10)
""",
}
