"""The dashboard: reads a project's runs, and sends chosen failures to Argilla.

Started by `handloom dashboard`, which names the project's folder in HANDLOOM_PROJECT.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from annotate.errors import HandloomError
from streamlit_app.data import open_project, readable_runs
from streamlit_app.plain import escaped, show_error

PAGES = [
    st.Page(
        "views/rounds.py", title="Rounds", url_path="rounds", icon=":material/cycle:", default=True
    ),
    st.Page("views/failures.py", title="Failures", url_path="failures", icon=":material/rule:"),
    st.Page(
        "views/agreement.py", title="Agreement", url_path="agreement", icon=":material/handshake:"
    ),
    st.Page(
        "views/annotators.py", title="Annotators", url_path="annotators", icon=":material/group:"
    ),
    st.Page(
        "views/training.py",
        title="Training curves",
        url_path="training",
        icon=":material/show_chart:",
    ),
    st.Page("views/sweeps.py", title="Sweeps", url_path="sweeps", icon=":material/tune:"),
]


# A file of ours: Streamlit has browsers fetch other icons from a font server.
ICON = Path(__file__).with_name("icon.svg")
# Streamlit leaves a tenth of the screen empty above a page.
STYLE = "<style>.stMainBlockContainer {padding-top: 2.5rem; padding-bottom: 3rem}</style>"


def main() -> None:
    """Show the chosen page; what a user can mend is one line, never a traceback."""
    st.set_page_config(page_title="Handloom", page_icon=ICON, layout="wide")
    st.html(STYLE)
    page = st.navigation(PAGES)
    try:
        project = open_project()
        with st.sidebar:
            st.caption(f"Project {escaped(project.root.name)}")
        page.run()
        for broken in readable_runs(project)[1]:
            show_error(broken, "A run cannot be read, and is left out here")
    except HandloomError as error:
        show_error(error)


main()
