"""The words of a plotting program: what it may import, name and reach. All else is refused.

Lists of what is allowed, not of what is forbidden: a new version of numpy or matplotlib adds
nothing to them. Left out is whatever reads or writes a file, starts or waits for something, shows
a window, tells the time, or leads from a picture's parts back to the machine.
"""

from collections.abc import Mapping
from types import MappingProxyType

RULES = 1  # part of the renderer's id: to be raised with any change of verdicts, mends or settings


def _words(*lists: str) -> frozenset[str]:
    return frozenset(word for text in lists for word in text.split())


BUILTINS = _words(
    """abs all any bool chr complex dict divmod enumerate filter float format frozenset int
    isinstance iter len list map max min next ord pow print range repr reversed round set slice
    sorted str sum tuple zip"""
)
_MATH = _words(
    """acos acosh asin asinh atan atan2 atanh cbrt ceil comb copysign cos cosh degrees dist e erf
    erfc exp exp2 expm1 fabs factorial floor fmod frexp fsum gamma gcd hypot inf isclose isfinite
    isinf isnan isqrt lcm ldexp lgamma log log10 log1p log2 modf nan nextafter perm pi pow prod
    radians remainder sin sinh sqrt tan tanh tau trunc ulp"""
)
_PYPLOT = _words(
    """Circle FixedFormatter FixedLocator FormatStrFormatter FuncFormatter Line2D LinearLocator
    LogLocator MaxNLocator MultipleLocator Normalize NullFormatter NullLocator Polygon Rectangle
    ScalarFormatter""",
    """acorr annotate arrow autoscale axes axhline axhspan axis axline axvline axvspan bar bar_label
    barbs barh box boxplot broken_barh cla clabel clf clim colorbar contour contourf cycler delaxes
    ecdf errorbar eventplot figaspect figlegend figtext figure fill fill_between fill_betweenx
    fignum_exists gca gcf gci get_cmap get_fignums grid grouped_bar hexbin hist hist2d hlines imshow
    legend locator_params loglog margins matshow minorticks_off minorticks_on pcolor pcolormesh pie
    pie_label plot polar quiver quiverkey rc rgrids sca scatter sci semilogx semilogy set_cmap setp
    specgram spy stackplot stairs stem step streamplot subplot subplot2grid subplot_mosaic subplots
    subplots_adjust suptitle table text thetagrids tick_params ticklabel_format tight_layout title
    tricontour tricontourf tripcolor triplot twinx twiny violinplot vlines xcorr xlabel xlim xscale
    xticks ylabel ylim yscale yticks""",
    """autumn bone cool copper flag gray hot hsv inferno jet magma nipy_spectral pink plasma prism
    spring summer viridis winter""",
)
_NUMPY = _words(
    """abs absolute add all allclose amax amin angle any append apply_along_axis arange arccos
    arccosh arcsin arcsinh arctan arctan2 arctanh argmax argmin argpartition argsort argwhere around
    array array_equal array_split asarray atleast_1d atleast_2d average bartlett bincount blackman
    block bool bool_ broadcast_to cbrt ceil choose clip column_stack complex128 concatenate conj
    convolve copy copysign corrcoef correlate cos cosh count_nonzero cov cross cumprod cumsum
    deg2rad degrees delete diag diagonal diff digitize divide divmod dot dsplit dstack e ediff1d
    einsum empty empty_like equal exp exp2 expand_dims expm1 eye fabs flatnonzero flip fliplr flipud
    float32 float64 floor floor_divide fmax fmin fmod frompyfunc full full_like gcd geomspace
    gradient greater greater_equal hamming hanning heaviside histogram histogram2d hsplit hstack
    hypot i0 identity imag in1d indices inf inner insert int16 int32 int64 int8 int_ interp
    intersect1d invert isclose isfinite isin isinf isnan isscalar kaiser kron lcm less less_equal
    lexsort linspace log log10 log1p log2 logaddexp logical_and logical_not logical_or logical_xor
    logspace matmul max maximum mean median meshgrid mgrid min minimum mod moveaxis multiply nan
    nan_to_num nanargmax nanargmin nanmax nanmean nanmedian nanmin nanpercentile nanstd nansum
    ndenumerate ndim ndindex negative newaxis nonzero not_equal ogrid ones ones_like outer pad
    partition percentile pi piecewise place poly1d polyadd polyder polyfit polyint polymul polyval
    positive power prod ptp quantile r_ c_ s_ rad2deg radians ravel real reciprocal remainder repeat
    reshape resize rint roll rollaxis roots rot90 round row_stack searchsorted select setdiff1d
    shape sign sin sinc sinh size sort split sqrt square squeeze stack std subtract sum swapaxes
    take take_along_axis tan tanh tensordot tile trace transpose trapezoid tri tril triu true_divide
    trunc uint16 uint32 uint64 uint8 union1d unique unravel_index unwrap vander var vdot vectorize
    vsplit vstack where zeros zeros_like"""
)
_DRAWN_BY_LOT = _words(
    """beta binomial chisquare choice default_rng dirichlet exponential gamma geometric gumbel
    hypergeometric laplace logistic lognormal multinomial multivariate_normal negative_binomial
    normal pareto permutation poisson power rand randint randn random random_sample rayleigh seed
    shuffle standard_normal standard_t triangular uniform vonmises wald weibull zipf"""
)
_ALGEBRA = _words(
    """cholesky cond cross det diagonal eig eigh eigvals eigvalsh inv lstsq matmul matrix_norm
    matrix_power matrix_rank norm pinv qr slogdet solve svd trace vector_norm"""
)
_FOURIER = _words("fft ifft fft2 ifft2 rfft irfft fftfreq rfftfreq fftshift ifftshift")
_COLOURS = _words(
    """magma inferno plasma viridis cividis twilight twilight_shifted turbo Blues BrBG BuGn BuPu
    CMRmap GnBu Greens Greys OrRd Oranges PRGn PiYG PuBu PuBuGn PuOr PuRd Purples RdBu RdGy RdPu
    RdYlBu RdYlGn Reds Spectral Wistia YlGn YlGnBu YlOrBr YlOrRd afmhot autumn binary bone brg bwr
    cool coolwarm copper cubehelix flag gist_earth gist_gray gist_heat gist_ncar gist_rainbow
    gist_stern gnuplot gnuplot2 gray hot hsv jet nipy_spectral ocean pink prism rainbow seismic
    spring summer terrain winter Accent Dark2 Paired Pastel1 Pastel2 Set1 Set2 Set3 tab10 tab20
    tab20b tab20c get_cmap"""
)
# Module: what may be reached in it. A module itself is never a value: it cannot be passed on.
MODULES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "math": _MATH,
        "numpy": _NUMPY | {"random", "linalg", "fft"},
        "numpy.random": _DRAWN_BY_LOT,
        "numpy.linalg": _ALGEBRA,
        "numpy.fft": _FOURIER,
        "matplotlib": frozenset({"pyplot"}),
        "matplotlib.pyplot": _PYPLOT | {"cm", "colormaps", "style", "rcParams"},
        "matplotlib.pyplot.cm": _COLOURS,
        "matplotlib.pyplot.colormaps": frozenset({"get_cmap"}),
        "matplotlib.pyplot.style": frozenset({"use"}),
        "matplotlib.pyplot.rcParams": frozenset({"update"}),
    }
)
IMPORTABLE = frozenset({"math", "numpy", "matplotlib.pyplot"})
# What may be reached in anything that is no module; get_... and set_... besides, but a few.
ATTRIBUTES = _words(
    # figures, axes and what stands in them
    """acorr add_artist add_axes add_collection add_gridspec add_image add_line add_patch
    add_subplot add_table align_labels align_xlabels align_ylabels angle annotate arrow
    auto_set_column_width auto_set_font_size autofmt_xdate autoscale autoscale_view axes axhline
    axhspan axis axline axvline axvspan bar bar3d bar_label barbs barh bottoms boxplot broken_barh
    bxp center cells cla clabel clear clf cmap colorbar contour contour3D contourf contourf3D
    delaxes ecdf edges errorbar eventplot figure fill fill_between fill_betweenx from_list gca grid
    grouped_bar has_data height hexbin hist hist2d hlines images imshow indicate_inset
    indicate_inset_zoom inset_axes invert_xaxis invert_yaxis invert_zaxis label_outer legend
    legend_elements lines locator_params loglog margins matshow minorticks_off minorticks_on ncols
    norm nrows patch patches pcolor pcolormesh pie pie_label plot plot3D plot_surface plot_trisurf
    plot_wireframe properties quiver quiverkey radius relim resampled reversed rgrids scale scatter
    scatter3D secondary_xaxis secondary_yaxis semilogx semilogy sharex sharey specgram spines spy
    stackplot stairs stem step streamplot subplot_mosaic subplots subplots_adjust suptitle supxlabel
    supylabel table tables text text2D texts thetagrids tick_bottom tick_left tick_params tick_right
    tick_top ticklabel_format tight_layout title to_rgba tops transAxes transData transFigure
    tricontour tricontourf tripcolor triplot twinx twiny view_init violinplot vlines voxels width
    xaxis xcorr xy yaxis zaxis zorder""",
    # arrays, generators and numbers
    """T all any argmax argmin argsort astype choice clip conj copy cumprod cumsum diagonal dot
    dtype exponential fill flat flatten imag integers is_integer item itemsize lognormal max mean
    min multivariate_normal ndim nonzero normal permutation poisson prod ptp rand randint randn
    random ravel real repeat reshape round searchsorted shape shuffle size sort squeeze std sum
    swapaxes take tolist trace transpose uniform standard_normal binomial gamma beta bit_length
    numerator denominator outer reduce accumulate at""",
    # texts, lists and dictionaries
    """add append capitalize casefold center count difference discard endswith extend find format
    index insert intersection isalnum isalpha isdigit islower isnumeric isspace issubset issuperset
    istitle isupper items join keys ljust lower lstrip partition pop popitem remove replace reverse
    rfind rindex rjust rpartition rsplit rstrip setdefault split splitlines startswith strip
    swapcase symmetric_difference title union update upper values zfill""",
)
NOT_ATTRIBUTES = _words(
    """get_agg_filter set_agg_filter get_file set_file set_usetex get_usetex set_url get_url
    set_canvas set_picker set_rasterized set_fontproperties set_font_properties
    get_fontproperties get_font_properties set_sketch_params get_renderer get_tightbbox
    get_window_extent set_figure set_callback set_transform_cache get_state set_state"""
)
# Statements that show or keep a picture, which the renderer does itself: left out, nothing lost.
KEEPING = frozenset({"show", "savefig", "close"})
NOT_KEYWORDS = _words("usetex fname backend backend_options fontproperties font_properties picker")
STYLES = _words(
    """Solarize_Light2 bmh classic dark_background default fivethirtyeight ggplot grayscale
    petroff10 seaborn-v0_8 seaborn-v0_8-bright seaborn-v0_8-colorblind seaborn-v0_8-dark
    seaborn-v0_8-dark-palette seaborn-v0_8-darkgrid seaborn-v0_8-deep seaborn-v0_8-muted
    seaborn-v0_8-notebook seaborn-v0_8-paper seaborn-v0_8-pastel seaborn-v0_8-poster
    seaborn-v0_8-talk seaborn-v0_8-ticks seaborn-v0_8-white seaborn-v0_8-whitegrid
    tableau-colorblind10"""
)
# Groups of rcParams that say how a picture looks, and the few settings in them that do more.
SETTINGS = _words(
    """axes axes3d boxplot contour errorbar figure font grid hatch hist image legend lines markers
    mathtext patch pcolor pcolormesh polaraxes scatter text xaxis xtick yaxis ytick"""
)
NOT_SETTINGS = _words(
    """text.usetex text.latex.preamble text.hinting text.hinting_factor figure.hooks
    figure.raise_window mathtext.fallback font.enable_last_resort"""
)
