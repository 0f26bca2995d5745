"""The descriptions of models, where FastChat's users import them."""

from fastchat.model_descriptions import ModelInfo, get_model_info, model_info, register_model_info

__all__ = ["ModelInfo", "get_model_info", "model_info", "register_model_info"]
