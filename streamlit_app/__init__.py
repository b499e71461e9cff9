"""The dashboard: a Streamlit view over the runs of a project."""
